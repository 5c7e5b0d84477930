"""Reads that the queue overtakes: the job that needs the file is there, or gone, before the read is done."""

from __future__ import annotations

from pathlib import Path

from .counted_load import CountedLoad
from .demands import Demand, is_content
from .held_reads import HeldReads
from .open_log import OpenLog
from .world import World


def held_world(folder: Path) -> tuple[World, HeldReads]:
    reads = HeldReads()
    world = World(folder / "loras", load=CountedLoad(reads), reads=reads)
    return world, reads


async def test_a_read_that_is_cancelled_while_it_is_queued_opens_nothing(tmp_path: Path) -> None:
    world, reads = held_world(tmp_path)
    world.submit("1", world.lora("a"))
    world.submit("2", world.lora("b"), resident=True)
    world.prefetcher.configure(world.settings.updated({"concurrency": 2}))
    await world.settle(reads=False)
    assert len(reads.waiting) == 2
    world.queue.clear()
    await world.settle(reads=False)
    log = OpenLog(world.root)
    reads.begin_next()
    reads.begin_next()
    assert log.opened() == set()
    log.close()
    await world.close()


async def test_a_job_keeps_the_read_that_it_has_joined_when_the_queue_is_cleared(tmp_path: Path) -> None:
    world, reads = held_world(tmp_path)
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle(reads=False)
    reads.begin_next()
    demand = Demand(world.cache, world.catalog.find(name), joins=True)
    world.queue.clear()
    await world.settle(reads=False)
    assert world.prefetcher.status().in_flight == (), "the prefetcher has let go of it"
    reads.end(0)
    demand.join()
    lease = demand.take()
    assert lease is not None
    assert lease.outcome == "join"
    assert is_content(lease, world.written)
    await world.close()


async def test_the_end_leaves_a_waiting_job_its_read(tmp_path: Path) -> None:
    world, reads = held_world(tmp_path)
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle(reads=False)
    reads.begin_next()
    demand = Demand(world.cache, world.catalog.find(name), joins=True)
    await world.close()
    demand.join()
    lease = demand.take()
    assert lease is not None
    assert is_content(lease, world.written)
