"""Looking the folders through again: one scan at a time, out of everybody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.system.daemon_pool import DaemonPool
from warmstack.loaders.system.disk_kind import Disk
from warmstack.lora.library import catalog as catalog_module
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.header_facts import HeaderFacts, read_facts
from warmstack.prefetch.queue.scan import DOUBT_S, LONGEST_DOUBT_S, REFRESH_S

from ..world import InlinePool, ManualPool, World


class Folders:
    """The folder of a library; the scans that ask for it are counted, and held from the second on."""

    def __init__(self, root: Path) -> None:
        self.scans = 0
        self.proceed = threading.Event()
        self._root = root

    def __call__(self) -> list[str]:
        self.scans += 1
        if self.scans > 1:
            self.proceed.wait(20)
        return [str(self._root)]


class ScansHeld(InlinePool):
    """Scans wait until the test says so."""

    def __init__(self) -> None:
        self.scans = ManualPool()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        is_scan = getattr(call, "__name__", "") == "refresh"
        return self.scans.submit(call) if is_scan else super().submit(call)


class Drive:
    """Lists its files; `is_away` is what opening one meets. `scans_at_s` are the times of the scans."""

    def __init__(self, world: World) -> None:
        self.is_away = True
        self.scans_at_s: list[float] = []
        self._world = world

    def folders(self) -> list[str]:
        self.scans_at_s.append(self._world.now_s)
        return [str(self._world.root)]

    def read(self, path: str) -> HeaderFacts:
        return HeaderFacts(problem="cannot be opened", is_lasting=False) if self.is_away else read_facts(path)


@pytest.fixture
def drive(world: World, monkeypatch: pytest.MonkeyPatch) -> Drive:
    drive = Drive(world)
    monkeypatch.setattr(catalog_module, "read_facts", drive.read)
    world.catalog = LoraCatalog(drive.folders)
    world.build()
    return drive


@pytest.fixture
async def folders(world: World) -> AsyncIterator[Folders]:
    """On real threads."""
    folders = Folders(world.root)
    world.catalog = LoraCatalog(folders)
    world.machine = replace(world.machine, make_pool=DaemonPool)
    world.build()
    yield folders
    folders.proceed.set()


async def until(holds: Callable[[], bool], world: World) -> None:
    async def look() -> None:
        while not holds():
            world.prefetcher.wake()
            await asyncio.sleep(0.001)

    await asyncio.wait_for(look(), 20)


async def test_planning_goes_on_during_a_scan_however_long_it_takes(world: World, folders: Folders) -> None:
    known = world.lora("known")
    world.submit("1", "missing")
    await world.settle()
    await until(lambda: len(world.catalog.snapshot.files) == 1, world)
    world.now_s += REFRESH_S
    await until(lambda: folders.scans == 2, world)
    world.now_s += REFRESH_S
    await world.settle()
    world.submit("2", known)
    await until(lambda: world.states().get("2") == {known: "ready"}, world)
    assert folders.scans == 2


async def test_a_scan_that_takes_long_leaves_time_before_the_next(world: World) -> None:
    scans = 0

    def folders() -> list[str]:
        nonlocal scans
        scans += 1
        world.now_s += 2 * REFRESH_S
        return [str(world.root)]

    world.catalog = LoraCatalog(folders)
    world.build()
    world.submit("1", "missing")
    for expected in (1, 2, 3):
        for _ in range(3):
            await world.settle()
        assert scans == expected
        world.now_s += REFRESH_S


async def test_no_disk_is_measured_during_a_scan(world: World) -> None:
    """Which reads headers with several threads of its own."""
    chores, probed = ScansHeld(), 0

    def probe(paths: Sequence[str], cancelled: Callable[[], bool]) -> tuple[float, ...]:
        nonlocal probed
        probed += 1
        return (1e9, 1e9)

    world.probe, world.disk_under = probe, lambda path: Disk("9:0", "flash")
    world.machine = replace(
        world.machine, make_pool=lambda size, name: chores if name.endswith("chore") else world.reads
    )
    world.build()
    world.lora("a")
    world.catalog.refresh()  # names are known before the headers
    for _ in range(3):
        await world.settle()
    assert (len(chores.scans.waiting), probed) == (1, 0)
    chores.scans.run_next()
    for _ in range(3):
        await world.settle()
    assert probed == 1


async def test_a_file_that_could_not_be_opened_is_read_ahead_once_it_can_be(world: World, drive: Drive) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    assert world.states() == {"1": {name: "failed"}}
    drive.is_away = False
    world.now_s += DOUBT_S
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}
    assert world.page_reads == [world.path(name)]


async def test_a_file_that_can_never_be_opened_is_tried_ever_more_seldom(world: World, drive: Drive) -> None:
    name, step_s = world.lora("a"), REFRESH_S
    world.submit("1", name)
    for _ in range(round(3 * LONGEST_DOUBT_S / step_s)):
        await world.settle()
        world.now_s += step_s
    rests_s = [later - earlier for earlier, later in zip(drive.scans_at_s, drive.scans_at_s[1:], strict=False)]
    assert rests_s == [*(times * DOUBT_S for times in (1, 2, 4, 8)), LONGEST_DOUBT_S, LONGEST_DOUBT_S]


async def test_only_a_file_that_some_job_needs_is_tried_again(world: World, drive: Drive) -> None:
    world.lora("unneeded")
    (world.root / "old.pt").write_bytes(b"\x80")
    world.submit("1", "old.pt")
    for _ in range(4):
        await world.settle()
        world.now_s += DOUBT_S
    assert len(drive.scans_at_s) == 1
