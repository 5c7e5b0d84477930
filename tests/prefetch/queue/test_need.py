"""What a job needs of what it names."""

from __future__ import annotations

import pytest

from warmstack.lora.library.file import LoraFile
from warmstack.lora.stacks.request_weights import RequestWeights
from warmstack.prefetch.queue.job import LoraReference, QueuedJob, References
from warmstack.prefetch.queue.need import Resolution, needs_of


def test_a_request_looks_up_the_weight_of_each_category_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of rows lie in a few of them, and a job is built anew whenever a name of it means another file."""
    looked_up: list[str] = []
    of = RequestWeights.of

    def counted(weights: RequestWeights, category: str) -> float:
        looked_up.append(category)
        return of(weights, category)

    monkeypatch.setattr(RequestWeights, "of", counted)
    weights = RequestWeights(0.5, {"styles": 0.5, "styles/dark": 0.0})
    categories = ("styles/ink", "styles/dark", "")
    references = tuple(LoraReference(f"{i}", 1.0, 2.0, "7", "Rows", True, weights=weights) for i in range(60))
    files = [LoraFile(f"{i}", f"/l/{i}", 10, 0, category=categories[i % 3]) for i in range(60)]
    known = {one.asks: Resolution("found", file) for one, file in zip(references, files, strict=True)}
    for _ in range(2):
        needs = needs_of(QueuedJob("1", None), References(references), known).needs
        assert [need.reference for need in needs] == [
            LoraReference(f"{i}", weight, 2 * weight, "7", "Rows", True)
            for i in range(60)
            if (weight := (0.25, 0.0, 0.5)[i % 3])
        ]
    assert sorted(looked_up) == sorted(categories)
