"""What is in sight of a queue, and which of it runs."""

from __future__ import annotations

from pathlib import Path

from warmstack.prefetch.queue.board import ARRIVING_JOBS, JOBS_IN_SIGHT, in_sight
from warmstack.prefetch.queue.job import JobKey, QueuedJob

from ..world import World, stock_graph

JOBS = [QueuedJob(str(i), None) for i in range(200)]
MOST = JOBS_IN_SIGHT + ARRIVING_JOBS


def keys(jobs: tuple[QueuedJob, ...]) -> set[JobKey]:
    return {job.key for job in jobs}


def test_jobs_come_into_sight_together_once_there_are_too_few() -> None:
    seen = in_sight(JOBS, ())
    assert seen == tuple(JOBS[:MOST])
    for gone in range(1, ARRIVING_JOBS + 1):
        assert in_sight(JOBS[gone:], keys(seen)) == tuple(JOBS[gone:MOST])
    gone = ARRIVING_JOBS + 1
    assert in_sight(JOBS[gone:], keys(seen)) == tuple(JOBS[gone : gone + MOST])


def test_a_job_put_in_front_is_seen_at_once() -> None:
    seen = in_sight(JOBS, ())
    queue = [QueuedJob("front", None), *JOBS]
    assert in_sight(queue, keys(seen)) == tuple(queue[:MOST])


async def test_a_job_that_is_put_back_does_not_run_any_more(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    world.submit("1", world.lora("a"))
    world.start("1")
    await world.settle()
    assert [job.running for job in world.prefetcher.status().queue] == [True]
    world.queue[0] = QueuedJob("1", world.queue[0].payload)
    await world.settle()
    assert [job.running for job in world.prefetcher.status().queue] == [False]
    await world.close()


async def test_two_jobs_of_one_id_are_two_jobs(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    first, second = world.lora("a"), world.lora("b")
    world.queue = [QueuedJob("same", stock_graph(name), ticket=i) for i, name in enumerate((first, second))]
    await world.settle()
    assert [[a.name for a in job.adapters] for job in world.prefetcher.status().queue] == [[first], [second]]
    assert set(world.page_reads) == {world.path(first), world.path(second)}
    while world.queue:
        job = world.queue[0]
        world.queue[0] = QueuedJob(job.job_id, job.payload, running=True, ticket=job.ticket)
        await world.settle()
        world.now_s += 10.0
        del world.queue[0]
    await world.settle()
    status = world.prefetcher.status()
    assert (status.page.hits, status.page.misses) == (2, 0)
    assert [(record.job_id, record.page_hits) for record in status.history] == [("same", 1), ("same", 1)]
    await world.close()
