"""Warm, evict, pin by name, on the real catalog and the real cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import load_adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.nodes.api.actions import Actions


class Library:
    """Four small LoRAs, a pickle and a broken file; `let_read` is cleared to hold readers up."""

    def __init__(self, folder: Path, budget_bytes: int = 1 << 20) -> None:
        self.folder = folder
        self.limiter: RateLimit | None = None
        for name in ("styles/ink", "styles/oil", "other/ink", "big"):
            self.write(name)
        torch.save({"a": torch.zeros(4)}, folder / "old.pt")
        (folder / "broken.safetensors").write_bytes(b"\xff" * 64)
        self.let_read = threading.Event()
        self.let_read.set()
        self.reading = threading.Event()
        self.catalog = LoraCatalog(lambda: [str(folder)])
        self.catalog.refresh()
        self.cache = AdapterCache(ByteBudget(budget_bytes), load=self._load)
        self.actions = Actions(self.catalog, self.cache, lambda: self.limiter)

    def write(self, name: str) -> None:
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"x.lora_A.weight": torch.ones(2, 8), "x.lora_B.weight": torch.ones(8, 2)}, path)

    def _load(self, *arguments: Any, **options: Any) -> Any:
        self.reading.set()
        assert self.let_read.wait(30)
        return load_adapter(*arguments, **options)

    def act(self, verb: str, *names: str) -> list[dict[str, Any]]:
        return self.actions.act(verb, names)

    def settle(self) -> None:
        """Wait for what was asked for so far: reads go one at a time, so the last one ends last."""
        self.actions._pool.submit(lambda: None).result(30)

    def states(self) -> dict[str, str]:
        return {view.name: view.state for view in self.cache.snapshot().adapters}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    library = Library(tmp_path)
    yield library
    library.let_read.set()
    library.actions.close()


def test_warming_returns_at_once_and_makes_resident(library: Library) -> None:
    library.let_read.clear()
    assert library.act("warm", "styles/ink", "big") == [
        {"name": "styles/ink", "file": "styles/ink.safetensors", "state": "loading"},
        {"name": "big", "file": "big.safetensors", "state": "loading"},
    ]
    assert library.reading.wait(30)
    assert library.states() == {"styles/ink.safetensors": "loading"}
    library.let_read.set()
    library.settle()
    assert library.states() == {"styles/ink.safetensors": "ready", "big.safetensors": "ready"}
    assert library.act("warm", "big")[0]["state"] == "ready"


def test_names_are_resolved_and_never_guessed(library: Library) -> None:
    ambiguous, missing = library.act("warm", "ink", "inkk")
    assert ambiguous["state"] == "ambiguous"
    assert set(ambiguous["candidates"]) == {"styles/ink.safetensors", "other/ink.safetensors"}
    assert missing["state"] == "missing"
    assert missing["candidates"]
    library.settle()
    assert library.states() == {}


def test_no_way_out_of_the_folders(library: Library, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.safetensors"
    save_file({"x": torch.ones(1)}, outside)
    names = [
        str(outside),
        f"../{outside.parent.name}/secret.safetensors",
        "/etc/passwd",
        "..",
        "\x00",
        "styles/../../x",
    ]
    assert {row["state"] for row in library.act("warm", *names)} == {"missing"}
    library.settle()
    assert library.states() == {}


def test_a_pickle_and_a_broken_file_are_not_read(library: Library) -> None:
    pickled, broken = library.act("warm", "old.pt", "broken")
    assert (pickled["state"], broken["state"]) == ("refused", "failed")
    assert pickled["reason"] and broken["reason"]
    assert str(library.folder) not in pickled["reason"] + broken["reason"]
    library.settle()
    assert not library.reading.is_set()


def test_a_new_file_is_found_without_a_restart(library: Library) -> None:
    library.write("fresh")
    assert library.act("warm", "fresh")[0]["state"] == "loading"


def test_evicting_spares_what_is_pinned_or_in_use(library: Library) -> None:
    library.act("warm", "styles/ink", "styles/oil", "big")
    library.act("pin", "styles/oil")
    library.settle()
    with library.cache.acquire(library.catalog.find("big")):
        rows = library.act("evict", "styles/ink", "styles/oil", "big", "other/ink")
        assert [(row["state"], row.get("reason")) for row in rows] == [
            ("cold", None), ("ready", "pinned"), ("ready", "in use"), ("cold", None),
        ]  # fmt: skip
        assert library.actions.evict_unpinned()[0]["reason"] == "in use"
    assert [row["file"] for row in library.actions.evict_unpinned()] == ["big.safetensors"]
    assert library.states() == {"styles/oil.safetensors": "ready"}
    unpinned = library.act("unpin", "styles/oil")[0]
    assert (unpinned["state"], unpinned["pinned"]) == ("ready", False)
    library.actions.evict_unpinned()
    assert library.states() == {}


@pytest.mark.parametrize("budget_bytes", [1 << 20, 0])
def test_a_limit_that_is_lifted_lets_go_the_read_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_bytes: int
) -> None:
    """Whether it goes into memory or into the page cache."""
    waits = threading.Event()
    spend = RateLimit.spend

    def watched(limit: RateLimit, *arguments: Any) -> None:
        if limit.bytes_per_s == 1:
            waits.set()
        spend(limit, *arguments)

    monkeypatch.setattr(RateLimit, "spend", watched)
    library = Library(tmp_path, budget_bytes)
    library.limiter = RateLimit(1)
    library.act("warm", "big")
    assert waits.wait(30)
    library.limiter = None
    library.settle()
    library.actions.close()


def test_pinning_brings_into_memory(library: Library) -> None:
    assert library.act("pin", "big")[0] == {
        "name": "big",
        "file": "big.safetensors",
        "state": "loading",
        "pinned": True,
    }
    library.settle()
    view = library.cache.snapshot().adapters[0]
    assert (view.state, view.pinned) == ("ready", True)


def test_asking_by_hand_takes_free_room_only(tmp_path: Path) -> None:
    library = Library(tmp_path, budget_bytes=500)
    library.act("warm", "styles/ink")
    library.settle()
    one_bytes = library.cache.snapshot().used_bytes
    assert 0 < one_bytes <= 500 < 2 * one_bytes
    library.act("warm", "styles/oil")
    library.settle()
    assert library.states() == {"styles/ink.safetensors": "ready"}
    library.actions.close()


def test_after_closing_nothing_is_read(library: Library) -> None:
    library.actions.close()
    assert library.act("warm", "big")[0]["state"] == "refused"
