"""Just deep enough: fetches start when they have to, not before, and in time."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.library.file import AdapterKey, LoraFile
from warmstack.prefetch.planning.pace import REMEMBERED, TIMED_BYTES, PaceMeter
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.planning.timetable import MARGIN_JOBS, MARGIN_S, Timetable

from ..world import World


def fetch(position: int, size_bytes: int = 100) -> Fetch:
    name = f"{position}-{size_bytes}"
    return Fetch(LoraFile(name, f"/{name}", size_bytes, 0), "resident", position)


def positions(fetches: tuple[Fetch, ...]) -> list[int]:
    return [fetch.position for fetch in fetches]


def test_without_measurements_everything_is_due() -> None:
    fetches = tuple(fetch(i) for i in range(5))
    for timetable in (Timetable(), Timetable(job_s=1.0), Timetable(rates={None: 1.0})):
        assert timetable.due(fetches) == (fetches, None)


def test_what_is_far_away_waits_and_says_how_long() -> None:
    # Jobs of 10 s, files of 1 s: a fetch is due when its job is 2 jobs, 2 files and its own second away.
    due, wait_s = Timetable(10.0, {None: 100.0}).due([fetch(i) for i in range(6)])
    assert positions(due) == [0, 1, 2]
    assert wait_s == pytest.approx((10 + 2 * 10 - 4) - (2 * 10 + 2 * 1))


def test_a_running_job_that_has_run_for_a_while_brings_the_others_nearer() -> None:
    later = [fetch(i) for i in (3, 4)]
    assert positions(Timetable(10.0, {None: 100.0}, elapsed_s=0.0).due(later).fetches) == []
    assert positions(Timetable(10.0, {None: 100.0}, elapsed_s=9.5).due(later).fetches) == [3]


def test_a_burst_later_makes_small_files_before_it_due_now() -> None:
    burst = [fetch(3), *(fetch(6, 1000) for _ in range(6))]
    assert positions(Timetable(10.0, {None: 100.0}).due([fetch(3)]).fetches) == []
    assert positions(Timetable(10.0, {None: 100.0}).due(burst).fetches) == [3, 6, 6, 6, 6, 6, 6]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 2000)), max_size=12),
    st.floats(0.05, 20),
    st.floats(10, 1000),
    st.floats(0, 1),
)
def test_fetched_when_due_every_file_that_can_be_in_time_is(
    wanted: list[tuple[int, int]], job_s: float, rate: float, elapsed: float
) -> None:
    """One reader that starts what is due, and waits as long as it is told, is as punctual as one that never waits."""
    fetches = [fetch(position, size) for position, size in sorted(wanted)]
    now_s = busy_until_s = eager_until_s = 0.0
    left = list(fetches)
    while left:
        timetable = Timetable(job_s, {None: rate}, elapsed_s=elapsed * job_s)
        shifted = Timetable(job_s, {None: rate}, elapsed_s=elapsed * job_s + now_s)
        if now_s < job_s * (1 - elapsed):
            due = shifted.due(left)
        else:  # the job has changed: everybody moves up
            passed = 1 + int((now_s - job_s * (1 - elapsed)) / job_s)
            rest = (now_s - job_s * (1 - elapsed)) % job_s
            moved = [Fetch(f.file, f.tier, max(0, f.position - passed)) for f in left]
            due = Timetable(job_s, {None: rate}, elapsed_s=rest).due(moved)
        if not due.fetches:
            assert due.wait_s is not None
            now_s += max(due.wait_s, 1e-3)
            continue
        first = left.pop(0)
        starts_s = timetable._starts_in_s(first.position, job_s)
        read_s = first.file.size_bytes / rate
        busy_until_s = max(busy_until_s, now_s) + read_s
        eager_until_s += read_s
        now_s = busy_until_s
        if eager_until_s <= starts_s:
            assert busy_until_s <= starts_s + 2e-3 * len(fetches)


def test_the_meter_takes_the_worst_of_the_last_measurements() -> None:
    meter = PaceMeter()
    assert meter.timetable(0.0) == Timetable(None, {}, 0.0)
    now_s = 0.0
    for i, seconds in enumerate([1.0] + [5.0, 3.0] * (REMEMBERED // 2)):
        meter.observe([str(i)], now_s)
        now_s += seconds
    meter.observe([], now_s)
    meter.count_read(TIMED_BYTES - 1, 100.0)
    meter.count_read(TIMED_BYTES * 4, 2.0)
    meter.count_read(TIMED_BYTES * 4, 1.0)
    meter.observe(["running"], now_s)
    assert meter.timetable(now_s + 1.5) == Timetable(3.0, {None: 2 * TIMED_BYTES}, 1.5)


async def test_the_prefetcher_reads_no_earlier_than_it_must_and_in_time(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    job_s = 10.0
    names = [world.lora(f"l{i}", TIMED_BYTES) for i in range(12)]
    world.on_chunk = lambda path, done: setattr(world, "now_s", world.now_s + 1.0 / 1024)
    world.submit("warmup", names[0])
    await world.settle()
    world.start("warmup")
    await world.settle()
    for i, name in enumerate(names[1:]):
        world.submit(str(i), name)
    world.now_s += job_s
    world.remove("warmup")
    world.start("0")
    for i in range(11):
        await world.settle()
        depth = len(world.page_reads) - 1 - i
        assert depth <= 2 + MARGIN_JOBS + MARGIN_S
        assert set(world.states()[str(i)].values()) == {"ready"}
        until_s = world.now_s + job_s
        while world.now_s < until_s:
            world.now_s += 0.25
            await world.settle()
        world.remove(str(i))
        if i < 10:
            world.start(str(i + 1))
    await world.settle()
    page = world.prefetcher.status().page
    assert (page.hits, page.misses) == (11, 1)
    await world.close()


def test_the_wait_ends_when_any_later_fetch_becomes_due() -> None:
    burst = [fetch(7), *(fetch(8, 400) for _ in range(3))]
    # Slack 69 s for the first, 80 - 13 = 67 s for the last of the burst. Another job of 12 s may come between, twice.
    assert Timetable(10.0, {None: 100.0}).due(burst) == ((), pytest.approx(67.0 - (20.0 + 2 * 12.0)))


async def test_a_deferred_fetch_starts_when_it_is_due_and_not_at_the_next_occasion(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    names = [world.lora(f"l{i}", TIMED_BYTES) for i in range(12)]
    meter = world.prefetcher._warmer.meter
    meter.observe(["past"], world.now_s - 10.0)
    meter.observe([], world.now_s)
    for name in names:
        meter._rates[world.disk_under(world.path(name))] = deque([float(TIMED_BYTES)])
    for i, name in enumerate(names):
        world.submit(str(i), name)
    world.start("0")
    await world.settle()
    before = len(world.page_reads)
    assert before < len(names)
    # The first time was reckoned while the files before it were still to be read.
    for _ in range(2):
        world.now_s = world.prefetcher._due_at_s
        await world.settle()
    assert len(world.page_reads) == before + 1
    await world.close()


def test_what_a_plan_only_counts_makes_the_files_before_it_due_too() -> None:
    timetable = Timetable(10.0, {None: 100.0})
    assert positions(timetable.due([fetch(9)]).fetches) == []
    counted = (AdapterKey("/counted", 100, 0), 9)
    assert positions(timetable.due([fetch(9)], [counted] * 80).fetches) == [9]
    alone, followed = timetable.due([fetch(9)]).wait_s, timetable.due([fetch(9)], [counted] * 8).wait_s
    assert alone is not None
    assert followed is not None
    assert followed < alone
    apart = Timetable(10.0, {"/9-100": 100.0, "/counted": 100.0}, line_of=str)
    assert apart.due([fetch(9)], [counted] * 80) == apart.due([fetch(9)]), "another disk reads it"


def test_urgent_is_what_would_be_late_beside_another_read() -> None:
    timetable = Timetable(10.0, {None: 100.0}, elapsed_s=4.0)
    assert [timetable.is_urgent(fetch(1, size)) for size in (290, 310)] == [False, True]
    assert not timetable.is_urgent(fetch(2, 310))
    for unmeasured in (Timetable(rates={None: 1.0}), Timetable(job_s=1.0)):
        assert [unmeasured.is_urgent(fetch(position)) for position in (1, 2)] == [True, False]
