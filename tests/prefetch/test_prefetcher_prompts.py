"""Prefetcher and what clients post: broken, many, giant."""

from __future__ import annotations

import asyncio
import threading
import time

from warmstack.prefetch.prefetcher import Prefetcher
from warmstack.prefetch.queue.book import READ_S, SLICE_S
from warmstack.prefetch.queue.job import QueuedJob, References
from warmstack.prefetch.references import payload_references

from .patience import until
from .world import World, stock_graph


async def test_a_broken_prompt_stops_nobody(world: World) -> None:
    name = world.lora("a")
    for i, payload in enumerate((None, [], {"1": None}, {"1": {"class_type": 3}}, ({"1": 5}, 7), "text")):
        world.queue.append(QueuedJob(str(i), payload))
    world.submit("good", name)
    await world.settle()
    assert world.states()["good"] == {name: "ready"}


async def test_references_are_read_once_per_job_and_forgotten_with_it(world: World) -> None:
    calls: list[object] = []

    def count(payload: object) -> References:
        calls.append(payload)
        return References()

    world.build(references=count)
    for i in range(30):
        world.submit(str(i), "x")
    await world.settle()
    world.start("4")
    await world.settle()
    assert len(calls) == 30
    world.queue.clear()
    await world.settle()
    world.submit("4", "x")
    await world.settle()
    assert len(calls) == 31


async def test_a_long_queue_is_read_in_slices(world: World) -> None:
    order: list[str] = []

    def slow(payload: object) -> References:
        order.append("read")
        enough_s = time.perf_counter() + 0.75 * SLICE_S
        while time.perf_counter() < enough_s:
            pass
        return References()

    world.build(references=slow)
    for i in range(10):
        world.submit(str(i), "x")
    task = asyncio.get_running_loop().create_task(world.prefetcher.run())
    while order.count("read") < 10:
        await asyncio.sleep(0)
        order.append("breath")
    world.prefetcher.close()
    await task
    longest = max(len(part.split()) for part in " ".join(order).split("breath"))
    assert longest <= 2


async def test_the_first_jobs_are_planned_while_later_graphs_are_still_being_read(world: World) -> None:
    """Graphs that take long, and a queue that is cleared meanwhile."""
    name, seen = world.lora("a"), []

    def slow(payload: object) -> References:
        seen.append(payload)
        if len(seen) > 1:
            time.sleep(READ_S)
        return payload_references(payload)

    world.build(references=slow)
    for i in range(20):
        world.submit(str(i), name)
    await until(world, lambda: bool(world.reads.waiting))
    assert len(seen) < 10
    del world.queue[1:]
    await until(world, lambda: len(world.prefetcher.status().queue) == 1)
    assert len(seen) < 15


async def test_a_giant_graph_is_read_off_the_loop(world: World) -> None:
    threads: list[int] = []
    loop, both = asyncio.get_running_loop(), asyncio.Event()

    def remember(payload: object) -> References:
        threads.append(threading.get_ident())
        if len(threads) == 2:
            loop.call_soon_threadsafe(both.set)
        return References()

    prefetcher = Prefetcher(
        jobs=lambda: [QueuedJob("1", stock_graph(*["x"] * 2000)), QueuedJob("2", stock_graph("x"))],
        catalog=world.catalog,
        cache=world.cache,
        references=remember,
    )
    task = asyncio.get_running_loop().create_task(prefetcher.run())
    await asyncio.wait_for(both.wait(), 10)
    prefetcher.close()
    await task
    assert threads[0] != threading.get_ident()
    assert threads[1] == threading.get_ident()
