"""Reads that the queue overtakes: the job that needs the file is there, or gone, before the read is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.library.file import AdapterKey, LoraFile
from warmstack.prefetch.prefetcher import BUSY_POLL_S
from warmstack.prefetch.reports.view import resident_keys

from .counted_load import CountedLoad
from .demands import Demand, is_content
from .held_reads import HeldReads
from .open_log import OpenLog
from .world import World


def held_world(folder: Path) -> tuple[World, HeldReads]:
    reads = HeldReads()
    world = World(folder / "loras", load=CountedLoad(reads), reads=reads)
    return world, reads


async def joined_read(folder: Path) -> tuple[World, HeldReads, Demand]:
    """The running job waits for a read that was begun for it."""
    world, reads = held_world(folder)
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle(reads=False)
    reads.begin_next()
    return world, reads, Demand(world.cache, world.catalog.find(name), joins=True)


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


async def test_a_read_keeps_its_place_when_a_later_job_comes(tmp_path: Path) -> None:
    """The cache is looked at once per poll, and then knows what is being read as well as what is there."""
    world, reads = held_world(tmp_path)
    names = [world.lora("next"), world.lora("later")]
    world.submit("1", names[0], resident=True)
    await world.settle(reads=False)
    reads.begin_next()
    world.now_s += BUSY_POLL_S
    world.submit("2", names[1], resident=True)
    await world.settle(reads=False)
    assert [fetch.name for fetch in world.prefetcher.status().in_flight] == names[:1]
    reads.end(0)
    await world.settle(reads=False)
    assert [fetch.name for fetch in world.prefetcher.status().in_flight] == names[1:]
    await world.close()


def test_what_a_demand_reads_need_not_be_read_and_what_only_we_read_must(tmp_path: Path) -> None:
    seen: list[frozenset[AdapterKey]] = []

    def load(file: LoraFile, **given: Any) -> Adapter:
        seen.append(resident_keys(world.cache.snapshot()))
        return load_adapter(file, **given)

    world = World(tmp_path / "loras", load=load)
    ours, demanded = (world.catalog.find(world.lora(name)) for name in ("ours", "demanded"))
    world.cache.prefetch(ours)
    world.cache.acquire(demanded)
    assert seen == [frozenset(), {ours.key, demanded.key}]


async def test_a_job_keeps_the_read_that_it_has_joined_when_the_queue_is_cleared(tmp_path: Path) -> None:
    world, reads, demand = await joined_read(tmp_path)
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
    world, _, demand = await joined_read(tmp_path)
    await world.close()
    demand.join()
    lease = demand.take()
    assert lease is not None
    assert is_content(lease, world.written)


async def test_a_file_that_was_written_since_is_not_in_memory_yet(tmp_path: Path) -> None:
    """A queue may name it as it is now, or as it was before the one in memory was written."""
    world = World(tmp_path / "loras")
    key = world.catalog.find(world.lora("a")).key
    world.cache.acquire(world.catalog.find("a")).release()
    since, before = (key._replace(mtime_ns=key.mtime_ns + step) for step in (1, -1))
    assert resident_keys(world.cache.snapshot(), {since, before}) == {key, before}
