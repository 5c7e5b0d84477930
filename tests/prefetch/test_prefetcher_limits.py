"""Prefetcher under its settings and the machine's memory: what changes applies at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from warmstack.prefetch.prefetcher import MEMORY_TICK_S
from warmstack.prefetch.settings import PrefetchSettings

from .world import CHUNK_BYTES, MIB, ManualPool, World


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


async def test_a_budget_of_less_than_two_adapters_has_the_next_ones_in_warm_pages(tmp_path: Path) -> None:
    """Each job needs an adapter of its own and that of the job before, whose uses end with it."""
    world = World(tmp_path / "loras", budget_bytes=6 * CHUNK_BYTES)
    names = [world.lora(f"l{i}") for i in range(8)]
    stacks = [(name, names[max(i - 1, 0)]) for i, name in enumerate(names)]
    for i, stack in enumerate(stacks):
        world.submit(str(i), *stack, resident=True)
    for i, stack in enumerate(stacks):
        world.start(str(i))
        await world.settle()
        leases = [world.cache.acquire(world.catalog.find(name)) for name in stack]
        await world.settle()
        assert set(world.states().get(str(i + 1), {"": "ready"}).values()) == {"ready"}
        world.remove(str(i))
        del leases
        await world.settle()
    assert len(world.page_reads) == len(set(world.page_reads)) >= 4
    assert world.prefetcher.status().wasted_bytes == 0
    await world.close()


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


async def test_of_two_budgets_set_right_after_each_other_the_last_one_counts(world: World) -> None:
    """Though the look at memory for the first has not ended when the second is set."""
    looks = ManualPool()
    make_pool = world.machine.make_pool
    world.machine = replace(
        world.machine, make_pool=lambda size, name: looks if "diskless" in name else make_pool(size, name)
    )
    world.build()
    await world.settle()
    looks.run_next()
    await world.settle()
    for budget_bytes in (1000, None):
        world.prefetcher.configure(world.settings.updated({"budget_bytes": budget_bytes}))
        await world.settle()
    while looks.waiting:
        looks.run_next()
        await world.settle()
    assert world.budget.limit_bytes == world.budget_bytes


async def test_switched_off_memory_is_watched_all_the_same(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", enabled=False)
    name = world.lora("a", 300 * CHUNK_BYTES)
    await world.settle()
    world.cache.acquire(world.catalog.find(name)).release()
    world.available_bytes = 0
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.budget.used_bytes == 0
    assert world.prefetcher.status().under_pressure
    await world.close()


async def test_switched_off_a_new_budget_applies_live(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", enabled=False)
    await world.settle()
    world.cache.acquire(world.catalog.find(world.lora("a", 300 * CHUNK_BYTES))).release()
    world.prefetcher.configure(world.settings.updated({"budget_bytes": 1000}))
    await world.settle()
    assert (world.budget.limit_bytes, world.budget.used_bytes) == (1000, 0)
    await world.close()


async def test_switched_off_under_pressure_the_budget_comes_back(world: World) -> None:
    world.available_bytes = 0
    await world.settle()
    world.prefetcher.configure(world.settings.updated({"enabled": False}))
    await world.settle()
    assert world.prefetcher.status().under_pressure
    assert world.budget.limit_bytes == 0
    world.available_bytes = 1 << 40
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert not world.prefetcher.status().under_pressure
    assert world.budget.limit_bytes == world.budget_bytes


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


async def test_what_lands_or_is_let_go_under_pressure_goes_too(world: World) -> None:
    """The budget was cut when neither could be evicted: one was still being read, the other was in use."""
    landing, used = world.lora("landing"), world.lora("used")
    world.submit("1", landing, resident=True)
    await world.settle(reads=False)
    lease = world.cache.acquire(world.catalog.find(used))
    world.available_bytes = 0
    world.now_s += MEMORY_TICK_S
    await world.settle(reads=False)
    world.reads.run_next()
    lease.release()
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.budget.limit_bytes == 0
    assert world.budget.used_bytes == 0
