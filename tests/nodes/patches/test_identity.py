"""Equal stacks have one uuid; whatever changes a weight changes it."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.library.file import AdapterKey
from warmstack.nodes.patches.identity import stack_uuid

_BASES = [uuid.UUID(int=1), uuid.UUID(int=2)]
_keys = st.builds(AdapterKey, st.sampled_from(["/a", "/b"]), st.integers(1, 2), st.integers(1, 2))
_rows = st.lists(st.tuples(_keys, st.sampled_from([0.0, -0.0, 0.1, 0.1 + 1e-12, 1.0])), max_size=3)
_stacks = st.fixed_dictionaries(
    {
        "base": st.sampled_from(_BASES), "rows": _rows, "math": st.sampled_from(["fused", "exact"]),
        "fingerprint": st.sampled_from(["f", "g"]), "side": st.sampled_from(["model", "clip"]),
    }
)  # fmt: skip


def _uuid(stack: dict[str, object]) -> uuid.UUID:
    return stack_uuid(**stack)  # type: ignore[arg-type]


@given(_stacks, _stacks)
def test_uuids_are_equal_exactly_when_stacks_are(one: dict[str, object], other: dict[str, object]) -> None:
    same = all(repr(one[name]) == repr(other[name]) for name in one)
    assert (_uuid(one) == _uuid(other)) == same
    assert _uuid(dict(one)) == _uuid(one)


def test_strengths_are_told_apart_to_the_last_bit() -> None:
    key = AdapterKey("/a", 1, 1)
    made = [
        stack_uuid(_BASES[0], [(key, strength)], math="fused", fingerprint="f", side="model")
        for strength in (0.1, 0.1 + 1e-12, -0.1, 1.0)
    ]
    assert len(set(made)) == 4
