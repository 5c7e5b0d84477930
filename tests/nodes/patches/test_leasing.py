"""Leases: all rows or none, and held for as long as a patcher carries them."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from warmstack.lora.cache.lease import Lease
from warmstack.lora.errors import AdapterLoadError, LoraNotFoundError
from warmstack.lora.library.file import LoraFile
from warmstack.lora.stacks.row import LoraRow
from warmstack.nodes.patches.leasing import LeaseHolder, lease_rows

ROWS = [LoraRow("a"), LoraRow("b"), LoraRow("c")]


class _Cache:
    """Hands out real leases and counts the ones that have not ended."""

    def __init__(self, broken: str = "") -> None:
        self.open: list[str] = []
        self.asked: list[str] = []
        self._broken = broken

    def acquire(self, file: LoraFile, *, cancelled: Callable[[], bool]) -> Lease:
        assert not cancelled()
        self.asked.append(file.name)
        if file.name == self._broken:
            raise AdapterLoadError(file.name, "broken")
        self.open.append(file.name)
        return Lease(None, "hit", 0.0, lambda: self.open.remove(file.name))  # type: ignore[arg-type]


def _find(row: LoraRow) -> LoraFile:
    return LoraFile(row.name, f"/{row.name}", 1, 1)


def _never() -> bool:
    return False


def test_every_row_gets_its_lease_in_order() -> None:
    cache, seen = _Cache(), []
    rows = lease_rows(ROWS, _find, cache, _never, lambda: seen.append(len(cache.open)))
    assert [(leased.row.name, leased.file.name) for leased in rows] == [("a", "a"), ("b", "b"), ("c", "c")]
    assert cache.open == ["a", "b", "c"] and seen == [1, 2, 3]


@pytest.mark.parametrize("broken", ["a", "b", "c"])
def test_a_failure_gives_back_what_was_taken(broken: str) -> None:
    cache = _Cache(broken)
    # The traceback keeps the frame and all in it, as a host that logs the error does.
    with pytest.raises(AdapterLoadError) as raised:
        lease_rows(ROWS, _find, cache, _never)
    assert raised.tb is not None and cache.open == []


def test_an_interrupt_gives_back_what_was_taken() -> None:
    class Interrupted(BaseException):
        pass

    def interrupt() -> None:
        raise Interrupted

    cache = _Cache()
    with pytest.raises(Interrupted) as raised:
        lease_rows(ROWS, _find, cache, _never, interrupt)
    assert raised.tb is not None and cache.open == []


def test_nothing_is_read_before_every_name_is_known() -> None:
    def find(row: LoraRow) -> LoraFile:
        if row.name == "c":
            raise LoraNotFoundError("c")
        return _find(row)

    cache = _Cache()
    with pytest.raises(LoraNotFoundError):
        lease_rows(ROWS, find, cache, _never)
    assert cache.asked == []


def test_a_holder_keeps_its_leases_and_those_of_the_patcher_it_builds_on() -> None:
    cache = _Cache()
    first = LeaseHolder(leased.lease for leased in lease_rows(ROWS[:1], _find, cache, _never))
    second = LeaseHolder((leased.lease for leased in lease_rows(ROWS[1:], _find, cache, _never)), first)
    del first
    gc.collect()
    assert cache.open == ["a", "b", "c"]
    del second
    gc.collect()
    assert cache.open == []


def test_a_foreign_attachment_under_our_name_is_ignored() -> None:
    assert LeaseHolder((), object()) is not None
