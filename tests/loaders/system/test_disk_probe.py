"""How many readers pay: measured past the page cache, bounded, and quiet where it cannot be measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders.system import disk_probe
from warmstack.loaders.system.disk_probe import GAIN, READERS, probe_rates, readers_that_pay
from warmstack.loaders.system.page_cache import drop_file, resident_bytes

MIB = 1 << 20


def never() -> bool:
    return False


class Reads:
    """What the probe asks of the system, counted; the real reads go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: list[tuple[int, int]] = []
        self._preadv = os.preadv
        monkeypatch.setattr(disk_probe.os, "preadv", self._count)

    def _count(self, file: int, buffers: list[bytearray], offset: int) -> int:
        self.blocks.append((os.fstat(file).st_ino, offset))
        return self._preadv(file, buffers, offset)


@pytest.fixture
def library(tmp_path: Path) -> list[str]:
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths:
        path.write_bytes(os.urandom(24 * MIB))
        drop_file(path)
    return [str(path) for path in paths]


@pytest.fixture
def refuses_direct_reads(library: list[str]) -> bool:
    return probe_rates(library, cancelled=never) == ()


def test_it_measures_a_real_disk_and_leaves_its_pages_alone(library: list[str], refuses_direct_reads: bool) -> None:
    if refuses_direct_reads:
        pytest.skip("this file system has no direct reads")
    assert [resident_bytes(path) for path in library] == [0, 0, 0]
    rates = probe_rates(library, cancelled=never)
    assert 1 <= len(rates) <= len(READERS)
    assert min(rates) > 0
    assert [resident_bytes(path) for path in library] == [0, 0, 0]


def test_it_reads_no_block_twice_and_no_more_than_it_may(
    library: list[str], refuses_direct_reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refuses_direct_reads:
        pytest.skip("this file system has no direct reads")
    reads = Reads(monkeypatch)
    monkeypatch.setattr(disk_probe, "GAIN", 0.0)
    probe_rates(library, cancelled=never, most_bytes=48 * MIB, most_s=60.0)
    assert len(set(reads.blocks)) == len(reads.blocks)
    # Every reader may be inside one more block when the last one counts.
    assert 3 * 16 <= len(reads.blocks) <= 48 + sum(READERS)


def test_it_stops_when_its_time_is_over(library: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    ticks = iter(range(1000))
    assert probe_rates(library, cancelled=never, clock=lambda: float(next(ticks)), most_s=9.0) == ()
    assert len(reads.blocks) < 8


def test_it_stops_within_one_block_when_somebody_needs_the_disk(
    library: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    assert probe_rates(library, cancelled=lambda: len(reads.blocks) >= 2) == ()
    assert len(reads.blocks) == 2


def refuse(*_: object) -> int:
    raise OSError(22, "Invalid argument")


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(disk_probe.os, "O_DIRECT")


@pytest.mark.parametrize("damage", [lambda patch: patch.setattr(disk_probe.os, "preadv", refuse), forget])
def test_where_it_cannot_be_measured_nothing_is_claimed(
    library: list[str], monkeypatch: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    damage(monkeypatch)
    assert probe_rates(library, cancelled=never) == ()


def test_a_small_library_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(5 * MIB))
    assert probe_rates([str(tmp_path / "small"), str(tmp_path / "absent")], cancelled=never) == ()


@pytest.mark.parametrize(
    ("rates", "readers"),
    [((), 1), ((100,), 1), ((100, 119), 1), ((100, 121), 2), ((100, 121, 140), 2), ((100, 180, 250), 4)],
)
def test_more_readers_only_where_every_doubling_pays(rates: tuple[float, ...], readers: int) -> None:
    assert readers_that_pay(rates) == readers


@given(st.lists(st.floats(1, 1e10), min_size=1, max_size=3))
def test_more_readers_than_one_are_never_slower_than_one(rates: list[float]) -> None:
    chosen = READERS.index(readers_that_pay(rates))
    assert rates[chosen] >= rates[0] * GAIN**chosen * (1 - 1e-9)
