"""What each of the last jobs found: told from the running totals of the real cache and the page tier."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from warmstack.prefetch.queue.job import JobKey
from warmstack.prefetch.reports.history import KEPT_JOBS, Demands, JobHistory
from warmstack.prefetch.status import JobRecord

from ..world import World


async def test_a_finished_job_is_told_with_what_it_found(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    hit, missed, page = (world.lora(name) for name in ("hit", "missed", "page"))
    world.submit("a", hit, resident=True)
    await world.settle()
    world.start("a")
    await world.settle()
    world.cache.acquire(world.catalog.find(hit)).release()
    world.cache.acquire(world.catalog.find(missed)).release()
    await world.settle()
    world.remove("a")
    world.submit("b", page)
    await world.settle()
    world.start("b")
    world.now_s += 5
    await world.settle()
    world.remove("b")
    await world.settle()
    first, second = world.prefetcher.status().history
    assert (first.job_id, first.hits, first.misses, first.page_hits) == ("a", 1, 1, 0)
    assert (second.job_id, second.hits, second.misses, second.page_hits) == ("b", 0, 0, 1)
    assert (first.finished_s, second.finished_s) == (1000.0, 1005.0)
    await world.close()


async def test_it_is_told_with_prefetch_off_too(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", enabled=False)
    name = world.lora("cold")
    world.submit("a", name, resident=True)
    world.start("a")
    await world.settle()
    world.cache.acquire(world.catalog.find(name)).release()
    world.remove("a")
    await world.settle()
    assert [(record.job_id, record.misses) for record in world.prefetcher.status().history] == [("a", 1)]
    await world.close()


def test_loads_of_the_next_job_that_are_seen_with_its_start_are_not_the_last_one_s() -> None:
    history = JobHistory()
    looks = [("", 0), ("a", 1), ("a", 3), ("b", 4), ("b", 4), ("c", 4), ("", 6)]
    for now_s, (job, hits) in enumerate(looks):
        history.observe([JobKey(job, 0)] if job else [], Demands(hits=hits), now_s)
    assert [(record.job_id, record.hits) for record in history.records()] == [("a", 3), ("b", 1), ("c", 2)]


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 3)), max_size=200))
def test_no_demand_is_told_twice_and_the_history_stays_short(looks: list[tuple[str, int]]) -> None:
    history = JobHistory()
    total, told, last = 0, 0, None
    for now_s, (job, grown) in enumerate(looks):
        total += grown
        history.observe([JobKey(job, 0)] if job else [], Demands(misses=total), now_s)
        records = history.records()
        assert len(records) <= KEPT_JOBS
        if records and records[-1] is not last:
            last = records[-1]
            assert last.misses >= 0
            told += last.misses
    assert told <= total


def test_the_oldest_go_first() -> None:
    history = JobHistory()
    for number in range(KEPT_JOBS + 2):
        history.observe([JobKey(str(number), 0)], Demands(), number)
    kept: tuple[JobRecord, ...] = history.records()
    assert [kept[0].job_id, kept[-1].job_id, len(kept)] == ["1", str(KEPT_JOBS), KEPT_JOBS]
