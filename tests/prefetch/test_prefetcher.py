"""Prefetcher on real files, catalog and cache: what gets warm, when, and what it costs nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.prefetch.planning.horizon import NEAREST
from warmstack.prefetch.prefetcher import BUSY_POLL_S

from .counted_load import CountedLoad
from .held_reads import HeldReads
from .world import CHUNK_BYTES, World


async def test_stock_references_get_warm_pages_and_ours_become_resident(world: World) -> None:
    stock, ours = world.lora("stock"), world.lora("styles/ours")
    world.submit("1", stock)
    world.submit("2", "ours", resident=True)
    await world.settle()
    assert world.states() == {"1": {stock: "ready"}, "2": {ours: "ready"}}
    assert world.page_reads == [world.path(stock)]
    assert world.cache.acquire(world.catalog.find("ours")).outcome == "hit"


async def test_the_running_job_comes_first_then_queue_order(world: World) -> None:
    names = [world.lora(name) for name in "abcd"]
    for job_id, name in zip("1234", names, strict=True):
        world.submit(job_id, name)
    world.start("3")
    await world.settle()
    assert world.page_reads == [world.path(names[i]) for i in (2, 0, 1, 3)]


async def test_what_a_plan_only_counts_is_read_after_what_it_names(world: World) -> None:
    names = [world.lora(f"{i:02d}") for i in range(NEAREST + 8)]
    for name in names:
        world.submit(name, name)
    await world.settle()
    assert world.page_reads == [world.path(name) for name in names]


async def test_a_job_put_in_front_overtakes(world: World) -> None:
    names = [world.lora(name) for name in "abcd"]
    for job_id, name in zip("123", names, strict=False):
        world.submit(job_id, name)
    await world.settle(reads=False)
    world.submit("4", names[3], front=True)
    await world.settle()
    assert world.page_reads == [world.path(names[i]) for i in (3, 0, 1, 2)]


async def test_a_file_is_read_once_however_many_jobs_need_it(world: World) -> None:
    name = world.lora("a")
    for i in range(20):
        world.submit(str(i), name, name)
    await world.settle()
    assert world.page_reads == [world.path(name)]


async def test_pages_that_are_warm_already_are_not_read(world: World) -> None:
    name = world.lora("a")
    world.page_cache[world.path(name)] = os.stat(world.path(name)).st_size
    world.submit("1", name)
    await world.settle()
    assert world.page_reads == []
    assert world.states() == {"1": {name: "ready"}}


async def test_removing_the_last_job_that_needs_a_file_cancels_its_read(world: World) -> None:
    name, other = world.lora("a", 8 * CHUNK_BYTES), world.lora("b")
    world.submit("1", name)
    world.submit("2", name)
    world.submit("3", other)
    await world.settle(reads=False)
    world.remove("1")
    await world.settle(reads=False)
    assert [fetch.name for fetch in world.prefetcher.status().in_flight] == [name]
    world.remove("2")
    await world.settle(reads=False)
    assert world.prefetcher.status().in_flight == ()
    await world.settle()
    assert world.page_reads == [world.path(other)]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_read_that_is_wanted_again_is_started_again(world: World, concurrency: int) -> None:
    world.prefetcher.configure(world.settings.updated({"concurrency": concurrency}))
    name = world.lora("a")
    world.submit("1", name)
    await world.settle(reads=False)
    world.remove("1")
    await world.settle(reads=False)
    world.submit("2", name)
    await world.settle()
    assert world.states() == {"2": {name: "ready"}}


@pytest.mark.parametrize("resident", [True, False])
async def test_a_read_goes_on_for_a_queue_that_is_cleared_and_posted_again(tmp_path: Path, resident: bool) -> None:
    reads = HeldReads()
    load = CountedLoad(reads)
    world = World(tmp_path / "loras", load=load, reads=reads)
    name = world.lora("a", 8 * CHUNK_BYTES)
    world.catalog.refresh()
    for round_ in range(3):
        world.queue.clear()
        world.submit(f"{round_}", name, resident=resident)
        await world.settle(reads=False)
        if not round_:
            reads.begin_next()
    reads.end(0)
    await world.settle(reads=False)
    assert world.states() == {"2": {name: "ready"}}
    assert not reads.waiting, "a second read of the same file"
    await world.close()


async def test_an_adapter_that_somebody_evicted_is_brought_back_for_the_queue(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle()
    assert world.cache.evict(world.catalog.find(name).key)
    world.now_s += BUSY_POLL_S
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}


async def test_cancel_latency_is_one_chunk(world: World) -> None:
    name = world.lora("a", 50 * CHUNK_BYTES)
    chunks: list[int] = []

    def cancel_in_the_third(path: str, done_bytes: int) -> None:
        chunks.append(done_bytes)
        if len(chunks) == 3:
            world.prefetcher._warmer.stop()

    world.on_chunk = cancel_in_the_third
    world.submit("1", name)
    await world.settle(reads=False)
    world.reads.run_next()
    assert len(chunks) == 3
