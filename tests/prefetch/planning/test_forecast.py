"""Guesses beyond the queue: acted upon only when allowed, proven, and in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.prefetch.planning.plan import Fetch, Limits, Plan, Warm, speculate
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S
from warmstack.prefetch.queue.need import Use

from ..world import CHUNK_BYTES, World
from .test_plan import lora


async def habit(world: World, *, resident: bool = False) -> list[str]:
    """Thirty jobs that use a and b in turn; the last has used b."""
    names = [world.lora("a"), world.lora("b")]
    for i in range(30):
        world.submit(str(i), names[i % 2], resident=resident)
        await world.settle()
        world.start(str(i))
        await world.settle()
        world.remove(str(i))
        await world.settle()
    drop_pages(world)
    return names


def drop_pages(world: World) -> None:
    """The page cache is empty, and the prefetcher knows."""
    world.page_cache.clear()
    world.page_reads.clear()
    world.prefetcher._warmer.forget_pages(set(world.prefetcher._warmer.pages))
    world.now_s += MEMORY_TICK_S


@pytest.mark.parametrize("predict", [True, False])
async def test_what_usually_follows_is_kept_warm_when_allowed(tmp_path: Path, predict: bool) -> None:
    world = World(tmp_path / "loras", predict=predict)
    names = await habit(world)
    assert world.prefetcher.status().predictor.active == predict
    world.submit("last", names[1])
    await world.settle()
    world.start("last")
    await world.settle()
    expected = {world.path(name) for name in (names if predict else names[1:])}
    assert set(world.page_reads) == expected
    await world.close()


async def test_a_guess_gives_way_to_the_queue(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", predict=True)
    names = await habit(world)
    urgent = world.lora("urgent")
    world.prefetcher._resolver.refresh()
    world.submit("last", names[1])
    await world.settle()
    world.start("last")
    drop_pages(world)
    await world.settle(reads=False)
    world.reads.run_next()
    await world.settle(reads=False)
    assert [fetch.name for fetch in world.prefetcher.status().in_flight] == [names[0]]
    world.submit("next", urgent)
    await world.settle(reads=False)
    assert names[0] not in [fetch.name for fetch in world.prefetcher.status().in_flight]
    await world.settle()
    assert world.page_reads == [world.path(name) for name in (names[1], urgent, names[0])]
    await world.close()


async def test_a_guess_evicts_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", predict=True, budget_bytes=10 * CHUNK_BYTES)
    names = await habit(world, resident=True)
    for view in world.cache.snapshot().adapters:
        world.cache.evict(view.key)
    big = world.lora("big", 8 * CHUNK_BYTES)
    world.prefetcher._resolver.refresh()
    world.cache.acquire(world.catalog.find(big)).release()
    world.now_s += MEMORY_TICK_S + BUSY_POLL_S
    await world.settle()
    assert [view.name for view in world.cache.snapshot().adapters] == [big]
    assert set(world.page_reads) == {world.path(name) for name in names}
    await world.close()


def test_speculate_adds_only_what_is_new_and_fits() -> None:
    a, b, c, big, broken = (lora(name, size) for name, size in zip("abcde", (10, 10, 10, 60, 10), strict=True))
    uses = [
        Use(file.key, file, resident)
        for file, resident in ((a, True), (b, True), (broken, True), (big, True), (c, False))
    ]
    plan = Plan(resident=frozenset({a.key}), next_uses={a.key: 0})
    guessed = speculate(plan, uses, Limits(50, 100), Warm(failed={broken.key}))
    assert [(fetch.file, fetch.tier) for fetch in guessed.fetches] == [(b, "resident"), (big, "page"), (c, "page")]
    assert guessed.next_uses == plan.next_uses
    assert guessed.resident == {a.key, b.key, broken.key}
    assert all(guessed.wants(Fetch(f.file, f.tier, 0).key) for f in guessed.fetches)
