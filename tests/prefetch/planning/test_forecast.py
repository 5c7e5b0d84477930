"""Guesses beyond the queue: acted upon only when allowed, proven, and in nobody's way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from warmstack.prefetch.planning.lasting_forecast import KEEP_EVERY_S
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


@pytest.mark.parametrize("resident", [True, False])
async def test_what_was_learnt_survives_a_restart(tmp_path: Path, resident: bool) -> None:
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    names = await habit(world, resident=resident)
    known = world.prefetcher.status().predictor
    await world.restart()
    await world.settle()
    assert known.active
    assert world.prefetcher.status().predictor == known
    # Nothing is queued yet: what the last job used comes first, then what usually follows.
    assert world.page_reads == ([] if resident else [world.path(name) for name in reversed(names)])
    assert {view.name for view in world.cache.snapshot().adapters} == (set(names) if resident else set())
    await world.close()


async def test_what_a_job_used_before_the_past_was_known_comes_after_it(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    names = await habit(world)
    await world.close()
    uninterrupted = World(tmp_path / "loras", predict=True)
    await habit(uninterrupted)
    for each in (world, uninterrupted):
        if each is world:
            await each.restart()
        each.submit("first", names[0])
        each.start("first")
        await each.settle()
    assert world.prefetcher.status().predictor == uninterrupted.prefetcher.status().predictor
    assert uninterrupted.prefetcher.status().predictor.checked
    await world.close()
    await uninterrupted.close()


@pytest.mark.parametrize("predict", [True, False])
async def test_a_trace_of_names_is_kept_only_where_guessing_is_allowed(tmp_path: Path, predict: bool) -> None:
    world = World(tmp_path / "loras", predict=predict, state_folder=tmp_path / "state")
    await habit(world)
    await world.close()
    kept = tmp_path / "state" / "habits.json"
    assert kept.exists() == predict
    if predict:
        assert str(tmp_path) not in kept.read_text()
        assert len(json.loads(kept.read_text())["runs"]) == 30


async def test_a_killed_process_forgets_the_last_seconds_only(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    kept = tmp_path / "state" / "habits.json"
    name = world.lora("a")
    await world.settle()
    world.submit("1", name)
    world.start("1")
    await world.settle()
    first = kept.read_text()
    world.remove("1")
    world.submit("2", world.lora("b"))
    world.start("2")
    world.prefetcher._resolver.refresh()
    await world.settle()
    assert kept.read_text() == first
    world.now_s += KEEP_EVERY_S
    await world.settle()
    runs = json.loads(kept.read_text())["runs"]
    assert [run["loras"] for run in runs] == [[["a.safetensors", "page"]], [["b.safetensors", "page"]]]
    await world.close()


async def test_guessing_may_be_allowed_and_forbidden_while_it_runs(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    names = await habit(world)
    await world.restart()
    world.prefetcher.configure(world.settings.updated({"predict": False}))
    await world.settle()
    assert world.page_reads == []
    world.prefetcher.configure(world.settings)
    await world.settle()
    assert set(world.page_reads) == {world.path(name) for name in names}
    await world.close()


async def test_a_file_of_habits_names_nothing_outside_the_library(tmp_path: Path) -> None:
    """Nor anything that must not be opened, nor what is gone."""
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    there, gone, _unnamed = world.lora("there"), world.lora("gone"), world.lora("a")
    os.remove(world.path(gone))
    (world.root / "old.pt").write_bytes(b"\x80\x02cposix\nsystem\n")
    (tmp_path / "outside.safetensors").write_bytes(b"secret")
    outside = str(tmp_path / "outside.safetensors")
    loras = [[name, "page"] for name in (there, gone, "old.pt", "there", outside, world.path(there))]
    document = {"version": 1, "runs": [{"jobs": 1, "loras": loras}]}
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "habits.json").write_text(json.dumps(document))
    await world.settle()
    assert world.page_reads == [world.path(there)]
    await world.close()


async def test_a_damaged_file_of_habits_is_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "habits.json").write_text("{")
    world = World(tmp_path / "loras", predict=True, state_folder=tmp_path / "state")
    await habit(world)
    await world.close()
    assert "What past jobs used: unreadable" in caplog.text
    assert len(json.loads((tmp_path / "state" / "habits.json").read_text())["runs"]) == 30
