"""Prefetcher on real files, catalog and cache: what gets warm, when, and what it costs nobody."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from warmstack.prefetch import queue_board
from warmstack.prefetch.job import QueuedJob, References
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S, Prefetcher
from warmstack.prefetch.settings import PrefetchSettings

from .world import CHUNK_BYTES, MIB, World, our_graph, stock_graph


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "loras")
    yield world
    await world.close()


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


async def test_a_job_put_in_front_overtakes(world: World) -> None:
    names = [world.lora(name) for name in "abcd"]
    for job_id, name in zip("123", names, strict=False):
        world.submit(job_id, name)
    await world.settle(reads=False)
    world.submit("4", names[3], front=True)
    await world.settle()
    assert world.page_reads == [world.path(names[i]) for i in (0, 3, 1, 2)]


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


async def test_pickles_are_never_opened(world: World) -> None:
    (world.root / "old.pt").write_bytes(b"\x80\x02cposix\nsystem\n")
    world.submit("1", "old.pt")
    world.submit("2", "old.pt", resident=True)
    await world.settle()
    assert world.page_reads == []
    assert world.cache.snapshot().adapters == ()
    assert world.states()["1"] == {"old.pt": "cold"}


async def test_missing_and_ambiguous_names_are_told_apart_and_warm_nothing(world: World) -> None:
    world.lora("x/same")
    world.lora("y/same")
    world.submit("1", "same", "nowhere")
    await world.settle()
    assert world.states() == {"1": {"same": "ambiguous", "nowhere": "missing"}}
    assert world.page_reads == []


async def test_a_file_that_appears_later_is_found_by_a_throttled_scan(world: World) -> None:
    world.submit("1", "late")
    await world.settle()
    world.lora("late")
    await world.settle()
    assert world.states() == {"1": {"late": "missing"}}
    world.now_s += queue_board.REFRESH_S
    await world.settle()
    assert world.states() == {"1": {"late.safetensors": "ready"}}


async def test_a_failed_file_is_tried_again_only_when_it_changes(world: World) -> None:
    name = world.lora("a")
    broken = True

    def fail(path: str, done: int) -> None:
        if broken:
            raise OSError(5, "Input/output error", path)

    world.on_chunk = fail
    world.submit("1", name)
    for _ in range(3):
        await world.settle()
    assert world.states() == {"1": {name: "failed"}}
    assert len(world.page_reads) == 1
    adapter = world.prefetcher.status().queue[0].adapters[0]
    assert adapter.problem == "Input/output error"
    broken = False
    world.lora("a", 5 * CHUNK_BYTES)
    world.now_s += queue_board.RESTAT_S
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}


async def test_a_truncated_file_fails_in_the_resident_tier(world: World) -> None:
    name = world.lora("a")
    os.truncate(world.path(name), 2000)
    world.submit("1", name, resident=True)
    await world.settle()
    assert world.states() == {"1": {name: "failed"}}


async def test_a_replaced_file_is_read_again(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    world.lora("a", 6 * CHUNK_BYTES)
    world.page_cache.clear()
    world.now_s += queue_board.RESTAT_S
    await world.settle()
    assert len(world.page_reads) == 2


async def test_a_removed_file_is_missing(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    os.unlink(world.path(name))
    world.now_s += queue_board.RESTAT_S
    await world.settle()
    assert world.states() == {"1": {name: "missing"}}


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


async def test_an_adapter_that_somebody_evicted_is_brought_back_for_the_queue(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle()
    assert world.cache.evict(world.catalog.find(name).key)
    world.now_s += BUSY_POLL_S
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}


async def test_what_the_cache_has_no_room_for_gets_warm_pages_until_the_queue_moves(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", budget_bytes=6 * CHUNK_BYTES)
    used, name = world.lora("used"), world.lora("a")
    await world.settle()
    lease = world.cache.acquire(world.catalog.find(used))
    world.submit("1", name, resident=True)
    await world.settle()
    assert world.page_reads == [world.path(name)]
    assert world.states() == {"1": {name: "ready"}}
    lease.release()
    del lease
    world.submit("2")
    await world.settle()
    tiers = [adapter.tier for adapter in world.prefetcher.status().queue[0].adapters]
    assert tiers == ["resident"]
    assert world.cache.acquire(world.catalog.find(name)).outcome == "hit"
    await world.close()


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


async def test_only_so_many_files_are_read_at_a_time_and_a_change_applies_live(world: World) -> None:
    for i in range(6):
        world.submit(str(i), world.lora(f"l{i}"))
    await world.settle(reads=False)
    assert len(world.reads.waiting) == 1
    world.prefetcher.configure(PrefetchSettings(concurrency=3, headroom_bytes=0))
    await world.settle(reads=False)
    assert len(world.reads.waiting) == 3


async def test_switching_off_cancels_everything_and_on_takes_it_up_again(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle(reads=False)
    world.prefetcher.configure(PrefetchSettings(enabled=False))
    await world.settle()
    status = world.prefetcher.status()
    assert (status.enabled, status.in_flight, status.queue, status.queued_jobs) == (False, (), (), 1)
    assert world.page_reads == []
    world.prefetcher.configure(world.settings)
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}


async def test_pages_are_warmed_ahead_only_as_far_as_memory_allows(world: World) -> None:
    for i in range(8):
        world.submit(str(i), world.lora(f"l{i}", 100 * CHUNK_BYTES))
    world.available_bytes = MIB + 2 * 310 * CHUNK_BYTES
    await world.settle()
    assert len(world.page_reads) == 3


async def test_under_pressure_the_budget_shrinks_and_pages_wait_then_both_come_back(world: World) -> None:
    name, *others = world.lora("a", 300 * CHUNK_BYTES), world.lora("b"), world.lora("c")
    world.submit("1", name, resident=True)
    await world.settle()
    world.available_bytes = MIB // 2
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.prefetcher.status().under_pressure
    assert world.budget.used_bytes == 0
    world.submit("2", *others)
    await world.settle()
    assert world.page_reads == []
    world.available_bytes = 1 << 40
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert not world.prefetcher.status().under_pressure
    assert world.budget.limit_bytes == world.budget_bytes
    assert set(world.states()["1"].values()) | set(world.states()["2"].values()) == {"ready"}


async def test_a_new_budget_applies_live(world: World) -> None:
    name = world.lora("a", 300 * CHUNK_BYTES)
    world.submit("1", name, resident=True)
    await world.settle()
    world.prefetcher.configure(world.settings.updated({"budget_bytes": 1000}))
    await world.settle()
    assert world.budget.limit_bytes == 1000
    assert world.budget.used_bytes == 0
    assert world.page_reads == [world.path(name)]


async def test_pages_that_the_kernel_took_back_are_read_again(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    world.page_cache.clear()
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert len(world.page_reads) == 2


async def test_storage_whose_pages_cannot_be_seen_is_not_read_for_ever(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    world.machine = Machine(
        warm_file=world.machine.warm_file,
        resident_bytes=lambda path: 0,
        available_bytes=world.machine.available_bytes,
        clock=world.machine.clock,
        make_pool=world.machine.make_pool,
    )
    world.build()
    world.submit("1", world.lora("a"))
    for _ in range(3):
        await world.settle()
        world.now_s += MEMORY_TICK_S
    assert len(world.page_reads) == 1
    await world.close()


async def test_page_demands_are_counted_when_a_job_starts(world: World) -> None:
    ready, loading, cold, late = (world.lora(name) for name in ("ready", "loading", "z_cold", "late"))
    world.submit("1", ready)
    await world.settle()
    world.start("1")
    world.submit("2", loading, cold)
    await world.settle(reads=False)
    world.start("2")
    world.remove("1")
    await world.settle(reads=False)
    world.submit("3", late)
    world.remove("2")
    await world.settle()
    page = world.prefetcher.status().page
    assert (page.hits, page.joins, page.misses) == (1, 1, 1)
    assert page.wasted_bytes == 0


async def test_a_job_that_ran_between_two_looks_is_a_demand_and_a_deleted_one_is_waste(world: World) -> None:
    names = [world.lora(name) for name in "abc"]
    for job_id, name in zip("123", names, strict=True):
        world.submit(job_id, name)
    await world.settle()
    world.remove("1")
    world.start("2")
    world.remove("3")
    await world.settle()
    page = world.prefetcher.status().page
    assert page.hits == 2
    assert page.wasted_bytes == os.stat(world.path(names[2])).st_size


async def test_resident_demands_come_from_the_cache(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle()
    world.cache.acquire(world.catalog.find(name)).release()
    status = world.prefetcher.status()
    assert (status.hits, status.joins, status.misses) == (1, 0, 0)


async def test_the_cache_learns_the_next_uses(world: World) -> None:
    names = [world.lora(name) for name in "ab"]
    world.submit("1", names[0], resident=True)
    world.submit("2", *reversed(names), resident=True)
    await world.settle()
    uses = {view.name: view.next_use for view in world.cache.snapshot().adapters}
    assert uses == {names[0]: 0, names[1]: 1}
    world.queue.clear()
    await world.settle()
    assert {view.next_use for view in world.cache.snapshot().adapters} == {None}


async def test_a_status_is_jsonable_has_no_path_and_its_revision_moves_only_with_it(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name, str(world.root / "elsewhere.safetensors"))
    world.submit("2", name, resident=True)
    await world.settle(reads=False)
    before = world.prefetcher.status()
    await world.settle(reads=False)
    assert world.prefetcher.status() == before
    await world.settle()
    after = world.prefetcher.status()
    assert after.revision > before.revision
    for status in (before, after):
        assert str(world.root) not in json.dumps(status.as_json())
    assert json.loads(json.dumps(after.as_json()))["queue"][0]["adapters"][0]["state"] == "ready"


async def test_plan_for_answers_without_queueing(world: World) -> None:
    name = world.lora("styles/a")
    world.lora("x/same")
    world.lora("y/same")
    await world.settle()
    prompt = stock_graph("a", "same", "styles/b")
    prompt["8"] = our_graph("a")["1"]
    prompt["9"] = {"class_type": "Lora Cycler (LoraManager)", "inputs": {}}
    prompt["10"] = {"class_type": "Somebodys", "inputs": {"lora_hint": "not a file", "lora_file": "a"}}
    planned = world.prefetcher.plan_for(prompt)
    assert [(p.name, p.state, p.tier) for p in planned] == [
        ("a", "found", "page"),
        ("same", "ambiguous", None),
        ("styles/b", "missing", None),
        ("a", "found", "resident"),
        ("a", "found", "page"),
        ("", "unknown", None),
    ]
    assert planned[0].file == name
    assert planned[0].size_bytes == os.stat(world.path(name)).st_size
    assert planned[1].candidates == ("x/same.safetensors", "y/same.safetensors")
    assert planned[5].reason
    assert world.page_reads == []
    assert str(world.root) not in repr(planned)


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
        world.slice_s += 0.0015
        return References()

    world.slice_s = 0.0
    world.build(references=slow)
    world.prefetcher._board._book._clock = lambda: world.slice_s
    for i in range(10):
        world.submit(str(i), "x")
    task = asyncio.get_running_loop().create_task(world.prefetcher.run())
    while order.count("read") < 10:
        await asyncio.sleep(0)
        order.append("breath")
    world.prefetcher.close()
    await task
    longest = max(len(part.split()) for part in " ".join(order).split("breath"))
    assert longest == 2


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
