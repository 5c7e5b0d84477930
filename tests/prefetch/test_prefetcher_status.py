"""What a Prefetcher tells: counted demands, a status without paths, the plan for a prompt that is not queued."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.reading.filling import CHUNK_BYTES as READ_BYTES
from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.queue.board import ARRIVING_JOBS, JOBS_IN_SIGHT

from .world import CHUNK_BYTES, Chunks, World, our_graph, stock_graph


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


@pytest.mark.parametrize("jobs", [3, 2 * JOBS_IN_SIGHT])
async def test_a_queue_that_was_cleared_and_posted_again_between_two_looks_has_not_run(world: World, jobs: int) -> None:
    """Only its first job can have run, and here it was interrupted."""
    name = world.lora("a")
    for job in range(jobs):
        world.submit(f"before {job}", name)
    await world.settle()
    world.start("before 0")
    await world.settle()
    assert world.prefetcher.status().page.hits == 1
    world.queue.clear()
    for job in range(jobs):
        world.submit(f"after {job}", name)
    await world.settle()
    world.start("after 0")
    await world.settle()
    page = world.prefetcher.status().page
    assert (page.hits, page.misses) == (2, 0)


async def test_a_long_queue_that_went_by_in_a_moment_has_run(world: World) -> None:
    name = world.lora("a")
    for job in range(3 * JOBS_IN_SIGHT):
        world.submit(f"{job}", name)
    await world.settle()
    del world.queue[: 2 * JOBS_IN_SIGHT]
    await world.settle()
    page = world.prefetcher.status().page
    assert page.hits == JOBS_IN_SIGHT + ARRIVING_JOBS, "those that were in sight"


async def test_what_a_job_between_two_looks_acquired_was_not_warmed_for_nothing(tmp_path: Path) -> None:
    """Without room in memory, pages are warmed for what a job acquires from the cache."""
    world = World(tmp_path / "loras", resident_tier=False)
    world.submit("1", world.lora("a"), resident=True)
    world.submit("2")
    await world.settle()
    world.queue.pop(0)
    world.start("2")
    await world.settle()
    page = world.prefetcher.status().page
    assert page.warmed_bytes > 0
    assert page.wasted_bytes == 0
    await world.close()


async def test_resident_demands_come_from_the_cache(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle()
    world.cache.acquire(world.catalog.find(name)).release()
    status = world.prefetcher.status()
    assert (status.hits, status.joins, status.misses) == (1, 0, 0)


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
        assert str(world.root) not in json.dumps([status, status.as_json()])
    assert after.queue[0].adapters[0].state == "ready"


@pytest.mark.parametrize("resident", [True, False])
async def test_in_flight_tells_how_far_a_read_has_come(tmp_path: Path, resident: bool) -> None:
    shown: list[dict[str, Any]] = []

    def look(_done_bytes: int) -> None:
        world.prefetcher._publish()
        shown.extend(fetch._asdict() for fetch in world.prefetcher.status().in_flight)

    def load(file: LoraFile, limiter: Any = None, **options: Any) -> Adapter:
        return load_adapter(file, limiter=Chunks(world.reads, limiter, look), **options)

    world = World(tmp_path / "loras", load=load)
    world.on_chunk = lambda path, done_bytes: look(done_bytes)
    chunk_bytes, tier = (READ_BYTES, "resident") if resident else (CHUNK_BYTES, "page")
    name = world.lora("a", chunk_bytes + CHUNK_BYTES // 2)
    world.submit("1", name, resident=resident)
    await world.settle()
    size_bytes = os.stat(world.path(name)).st_size
    assert shown == [
        {"name": name, "tier": tier, "bytes_done": done_bytes, "bytes_total": size_bytes}
        for done_bytes in (0, chunk_bytes)
    ]
    await world.close()


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
