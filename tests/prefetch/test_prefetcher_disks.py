"""The prefetcher and its disks: side by side, out of the running job's way, in time for each, measured when idle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.system.disk_kind import Disk
from warmstack.prefetch.disks.job_reads import MOST_S, QUIET_S
from warmstack.prefetch.disks.job_watch import FRESH_S
from warmstack.prefetch.planning.pace import TIMED_BYTES, PaceMeter
from warmstack.prefetch.planning.timetable import Timetable
from warmstack.prefetch.prefetcher import BUSY_POLL_S
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.reading.warmer import JOB_READS

from .planning.test_timetable import fetch, positions
from .world import CHUNK_BYTES, MIB, World

FAST, SLOW = Disk("9:0", "flash"), Disk("8:0", "rotating")


@pytest.fixture
def disks(world: World) -> World:
    world.disk_under = lambda path: SLOW if "/slow" in path else FAST
    return world


def in_flight(world: World) -> list[str]:
    return [fetch.name for fetch in world.prefetcher.status().in_flight]


async def poll(world: World, job_bytes: int = 0, *, reads: bool = False) -> None:
    """A quarter of a second goes by in which the job reads that much."""
    assert world.job_read_bytes is not None
    world.now_s += BUSY_POLL_S
    world.job_read_bytes += job_bytes
    await world.settle(reads=reads)


async def test_disks_are_read_side_by_side_and_each_by_one(disks: World) -> None:
    for i, name in enumerate(("slow/a", "slow/b", "c", "d")):
        disks.submit(str(i), disks.lora(name))
    await disks.settle(reads=False)
    assert sorted(in_flight(disks)) == ["c.safetensors", "slow/a.safetensors"]
    await disks.settle()
    assert {state for job in disks.states().values() for state in job.values()} == {"ready"}


async def test_a_disk_that_is_found_while_names_are_looked_up_is_not_forgotten(
    disks: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its files stand in no line, and nothing else would bring them there."""
    name = disks.lora("a")
    board, warmer = disks.prefetcher._board, disks.prefetcher._warmer
    for way in ("locate", "survey"):
        monkeypatch.setattr(warmer._disks, way, lambda *_, **__: None)
    disks.submit("1", name)
    await disks.settle()
    assert disks.states() == {"1": {name: "cold"}}
    complete = board.complete

    async def complete_while_the_disk_is_found(stop: Callable[[], bool]) -> bool:
        monkeypatch.undo()
        changed = await complete(stop)
        warmer._disks._places[str(disks.root / name)] = FAST
        warmer._on_disks()
        return changed

    monkeypatch.setattr(board, "complete", complete_while_the_disk_is_found)
    await disks.settle()
    assert disks.states() == {"1": {name: "ready"}}


async def test_a_number_of_the_user_holds_for_all_disks_together(disks: World) -> None:
    disks.prefetcher.configure(disks.settings.updated({"concurrency": 1}))
    for i, name in enumerate(("slow/a", "b")):
        disks.submit(str(i), disks.lora(name))
    await disks.settle(reads=False)
    assert in_flight(disks) == ["slow/a.safetensors"]


async def test_while_the_running_job_reads_its_disk_only_its_own_files_are_read_there(disks: World) -> None:
    own, later, elsewhere = disks.lora("slow/own"), disks.lora("slow/later"), disks.lora("elsewhere")
    disks.submit("1", own)
    disks.start("1")
    await disks.settle(reads=False)
    for _ in range(2):
        await poll(disks, 100 * MIB)
    disks.submit("next")
    disks.submit("2", later, elsewhere)
    await poll(disks, 100 * MIB)
    assert in_flight(disks) == [own, elsewhere]
    while disks.reads.waiting:
        disks.reads.run_next()
        await poll(disks, 100 * MIB)
    assert disks.states()["2"] == {later: "cold", elsewhere: "ready"}
    assert disks.prefetcher.status().paused == JOB_READS
    for _ in range(int(QUIET_S / BUSY_POLL_S) + 1):
        await poll(disks)
    assert (in_flight(disks), disks.prefetcher.status().paused) == ([later], "")


async def test_jobs_that_fly_by_share_a_look_at_what_is_read_and_one_that_stays_has_its_own(disks: World) -> None:
    looks = 0

    def count() -> int:
        nonlocal looks
        looks += 1
        return 0

    disks.machine = replace(disks.machine, foreign_read_bytes=count)
    disks.build()
    for i, seconds in enumerate((0.0, FRESH_S / 4, FRESH_S / 4, FRESH_S)):
        disks.queue[:] = [QueuedJob(str(i), {}, running=True)]
        disks.now_s += seconds
        await disks.settle()
        assert looks == (2 if i == 3 else 1)
    await poll(disks)
    assert looks == 3


async def test_as_long_as_no_job_was_measured_the_next_ones_files_wait_for_nobody(disks: World) -> None:
    own, name = disks.lora("own"), disks.lora("next")
    disks.submit("1", own)
    disks.start("1")
    await disks.settle()
    for _ in range(3):
        await poll(disks, 100 * MIB)
    disks.submit("2", name)
    await disks.settle()
    assert disks.states()["2"] == {name: "ready"}


async def test_a_job_that_never_stops_reading_does_not_starve_the_next(disks: World) -> None:
    own, name = disks.lora("own"), disks.lora("later")
    disks.submit("1", own)
    disks.start("1")
    await disks.settle()
    for _ in range(3):
        await poll(disks, 100 * MIB)
    disks.submit("next")
    disks.submit("2", name)
    waited_s = 0.0
    while disks.states().get("2") != {name: "ready"}:
        await poll(disks, 100 * MIB, reads=True)
        waited_s += BUSY_POLL_S
        assert waited_s <= MOST_S
    assert waited_s > MOST_S / 2


@pytest.mark.parametrize(
    ("yields", "running", "counted"), [(False, True, True), (True, False, True), (True, True, False)]
)
async def test_nobody_waits_without_a_reason(disks: World, yields: bool, running: bool, counted: bool) -> None:
    """Switched off, with no job running, and where the system does not count."""
    disks.prefetcher.configure(disks.settings.updated({"yield_to_job": yields}))
    own, name = disks.lora("own"), disks.lora("later")
    disks.submit("1", own)
    if running:
        disks.start("1")
    await disks.settle()
    for _ in range(3):
        await poll(disks, 100 * MIB)
    if not counted:
        disks.now_s += 2 * QUIET_S
        disks.job_read_bytes = None
        await disks.settle()
    disks.submit("2", name)
    await disks.settle()
    assert disks.states()["2"] == {name: "ready"}
    assert disks.prefetcher.status().paused == ""


async def test_an_idle_server_measures_its_disk_once_and_reads_as_many_as_pay(disks: World) -> None:
    probed: list[Sequence[str]] = []

    def probe(paths: Sequence[str], cancelled: Callable[[], bool]) -> tuple[float, ...]:
        probed.append(paths)
        return 100.0, 200.0, 400.0

    disks.probe = probe
    names = [disks.lora(f"l{i}") for i in range(6)]
    for _ in range(6):
        await disks.settle()
    assert len(probed) == 1
    for i, name in enumerate(names):
        disks.submit(str(i), name)
    await disks.settle(reads=False)
    assert len(in_flight(disks)) == 4


async def test_a_job_larger_than_the_budget_streams_through(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", budget_bytes=10 * CHUNK_BYTES)
    names = [world.lora(f"l{i}", 4 * CHUNK_BYTES) for i in range(4)]
    world.submit("1", *names, resident=True)
    await world.settle()
    assert set(world.states()["1"].values()) == {"ready"}
    tiers = [adapter.tier for adapter in world.prefetcher.status().queue[0].adapters]
    assert set(tiers) == {"resident", "page"}
    world.start("1")
    leases = [world.cache.acquire(world.catalog.find(name)) for name in names]
    assert {lease.adapter.storage for lease in leases} == {"private", "mapped"}
    assert world.budget.peak_bytes <= 10 * CHUNK_BYTES
    await world.close()


def timetable_of(rates: dict[Any, float], **given: Any) -> Timetable:
    return Timetable(10.0, rates, line_of=lambda path: "slow" if path.endswith("-900") else "fast", **given)


def test_each_disk_has_a_rate_of_its_own() -> None:
    """Jobs of 10 s: on the slow disk a file takes two of them, on the fast one nothing to speak of."""
    far = [fetch(5), fetch(5, 900)]
    assert timetable_of({"slow": 45.0, "fast": 1e6}).due(far).fetches == (far[1],)
    assert timetable_of({"slow": 1e6, "fast": 1e6}).due(far).fetches == ()
    assert timetable_of({"fast": 1e6}).due(far).fetches == (far[1],), "a disk without a rate has no time to lose"


def test_the_wait_is_that_of_the_disk_that_is_due_first() -> None:
    timetable = timetable_of({"slow": 100.0, "fast": 100.0})
    small, large = timetable.due([fetch(5)]).wait_s, timetable.due([fetch(5, 900)]).wait_s
    assert small is not None
    assert large is not None
    assert large < small
    assert timetable.due([fetch(5), fetch(5, 900)]) == ((), large)


def test_the_steps_of_the_running_job_tell_its_end_better_than_the_jobs_before_it() -> None:
    due = [fetch(1)]
    assert positions(timetable_of({"fast": 100.0}, elapsed_s=9.0).due(due).fetches) == [1]
    assert positions(timetable_of({"fast": 100.0}, elapsed_s=9.0, left_s=60.0).due(due).fetches) == []
    assert positions(timetable_of({"fast": 100.0}, elapsed_s=0.0, left_s=1.0).due(due).fetches) == [1]


def test_reads_beside_each_other_share_the_rate_of_their_disk() -> None:
    meter = PaceMeter(lambda path: path[:1])
    meter.count_read(TIMED_BYTES, 1.0, "a1", beside=2)
    meter.count_read(TIMED_BYTES, 1.0, "b1")
    assert meter.timetable(0.0).rates == {"a": 2 * TIMED_BYTES, "b": TIMED_BYTES}


async def test_the_hosts_steps_reach_the_plan(disks: World) -> None:
    disks.submit("1", disks.lora("own"))
    disks.start("1")
    for step in range(1, 4):
        disks.progress = step / 20
        await poll(disks, reads=True)
    timetable = disks.prefetcher._warmer.meter.timetable(disks.now_s)
    assert timetable.left_s == pytest.approx(17 * BUSY_POLL_S)
