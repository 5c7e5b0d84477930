"""Prefetcher and files that are missing, damaged, replaced, unreadable or dangerous."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from warmstack.loaders.reading.tensor_file import Storage
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.errors import AdapterUnavailableError
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.file import LoraFile, as_on_disk
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.queue.lookup import AWAY_S, RESTAT_S
from warmstack.prefetch.queue.scan import REFRESH_S
from warmstack.prefetch.reading.unreadable import RETRY_S
from warmstack.prefetch.rest import REST_SHARE

from .world import CHUNK_BYTES, World


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


@pytest.mark.parametrize("written_in", ["the row", "the node"])
async def test_a_category_decides_between_files_of_one_name(world: World, written_in: str) -> None:
    world.lora("styles/same")
    world.lora("characters/same")
    rows, input_category = [{"name": "same", "category": "styles"}], "characters"
    if written_in == "the node":
        rows, input_category = [{"name": "same"}], "styles"
    stack = {"loras": json.dumps(rows), "category": input_category}
    world.queue.append(QueuedJob("1", {"1": {"class_type": "WarmStackLoraStack", "inputs": stack}}))
    await world.settle()
    assert world.states() == {"1": {"styles/same.safetensors": "ready"}}


async def test_what_weighs_nothing_in_the_category_of_its_file_is_left_alone_until_the_file_is_elsewhere(
    world: World,
) -> None:
    name = world.lora("details/hands")
    request = {"lora": {"category_weights": {"details": 0}, "models": ["hands"]}}
    node = {"class_type": "WarmStackLoraRequest", "inputs": {"request": json.dumps(request)}}
    world.queue.append(QueuedJob("1", {"1": node}))
    await world.settle()
    assert (world.states(), world.page_reads) == ({"1": {}}, [])
    os.replace(world.path(name), world.path("hands.safetensors"))
    world.catalog.refresh()
    await world.settle()
    assert world.states() == {"1": {"hands.safetensors": "ready"}}


@pytest.mark.parametrize(("before", "after", "runs_at"), [("style", "character", 0.8), ("", "style", None)])
async def test_what_a_replaced_file_weighs_is_not_known_before_its_header_is_read(
    world: World, before: str, after: str, runs_at: float | None
) -> None:
    """Unless its folder tells its category. What would weigh nothing where it was may be needed where it is."""
    request = {"models": [{"name": "ink", "weight": 0.8}, "styles/dots"], "category_weights": {"styles": 0}}
    graph = {"1": {"class_type": "WarmStackLoadLoraStack", "inputs": {"loras": json.dumps(request)}}}
    world.lora("ink", tags=before)
    world.lora("styles/dots", tags=before)
    world.submit("others", world.lora("other"))
    await world.settle()
    for name in ("ink", "styles/dots"):
        world.lora(name, 9 * CHUNK_BYTES, tags=after)
    world.queue.append(QueuedJob("1", graph))
    await world.settle()
    assert world.states()["1"] == {"ink.safetensors": "ready"}
    assert [(planned.name, planned.strength_model) for planned in world.prefetcher.plan_for(graph)] == [("ink", None)]
    world.catalog.refresh()
    planned = world.prefetcher.plan_for(graph)
    assert [one.strength_model for one in planned] == ([] if runs_at is None else [runs_at])


async def test_a_file_that_appears_later_is_found_by_a_throttled_scan(world: World) -> None:
    world.submit("1", "late")
    await world.settle()
    world.lora("late")
    await world.settle()
    assert world.states() == {"1": {"late": "missing"}}
    world.now_s += REFRESH_S
    await world.settle()
    assert world.states() == {"1": {"late.safetensors": "ready"}}


async def test_a_failed_file_is_tried_again_as_soon_as_it_changes(world: World) -> None:
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
    assert "Input/output error" in adapter.problem
    assert str(world.root) not in adapter.problem
    broken = False
    world.lora("a", 5 * CHUNK_BYTES)
    world.now_s += RESTAT_S
    await world.settle()
    assert world.states() == {"1": {name: "ready"}}


async def test_a_drive_that_was_gone_is_tried_again_after_a_while(world: World) -> None:
    name = world.lora("a")
    is_gone = True

    def fail(path: str, done: int) -> None:
        if is_gone:
            raise OSError(112, "Host is down", path)

    world.on_chunk = fail
    world.submit("1", name)
    for reads in (1, 2):
        for job_id in "23":
            world.submit(f"{reads}{job_id}", name)
            await world.settle()
        assert len(world.page_reads) == reads, "neither a look nor another job is a reason to try at once"
        assert world.states()["1"] == {name: "failed"}
        world.now_s += RETRY_S
    is_gone = False
    await world.settle()
    assert world.states()["1"] == {name: "ready"}


async def test_a_bad_sector_takes_little_of_its_disk_and_is_counted_once(world: World) -> None:
    name = world.lora("a", 8 * CHUNK_BYTES)

    def fail(path: str, done: int) -> None:
        if done == 2 * CHUNK_BYTES:
            world.now_s += 10.0
            raise OSError(5, "Input/output error", path)

    world.on_chunk = fail
    world.submit("0")
    world.submit("1", name)
    for reads in (1, 2, 3):
        await world.settle()
        world.now_s += (REST_SHARE - 1) * 10.0
        await world.settle()
        assert len(world.page_reads) == reads
        assert world.prefetcher.status().page.warmed_bytes == 2 * CHUNK_BYTES
        world.now_s += 10.0
    world.remove("1")
    await world.settle()
    assert world.prefetcher.status().page.wasted_bytes == 2 * CHUNK_BYTES


async def test_a_read_that_fails_late_rests_for_what_failed_and_not_for_what_was_read(world: World) -> None:
    name = world.lora("a", 8 * CHUNK_BYTES)

    def fail(path: str, done: int) -> None:
        if done == 3 * CHUNK_BYTES:
            raise OSError(112, "Host is down", path)
        world.now_s += 10.0

    world.on_chunk = fail
    world.submit("1", name)
    await world.settle()
    for reads in (1, 2, 3):
        assert len(world.page_reads) == reads
        world.now_s += RETRY_S
        await world.settle()


async def test_memory_that_was_not_there_is_tried_again_after_a_while(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", load=(load := RefusedOnce()))
    name = world.lora("a")
    world.submit("1", name, resident=True)
    for job_id in "23":
        await world.settle()
        world.submit(job_id, name, resident=True)
    assert world.states()["1"] == {name: "failed"}
    assert load.tries == 1
    world.now_s += RETRY_S
    await world.settle()
    assert world.states() == {job_id: {name: "ready"} for job_id in "123"}
    assert load.tries == 2
    await world.close()


async def test_what_a_job_could_load_has_not_failed(tmp_path: Path) -> None:
    world = World(tmp_path / "loras", load=RefusedOnce())
    name = world.lora("a")
    world.submit("1", name, resident=True)
    await world.settle()
    world.cache.acquire(world.catalog.find(name)).release()
    await world.settle()
    adapter = world.prefetcher.status().queue[0].adapters[0]
    assert (adapter.state, adapter.problem) == ("ready", "")
    await world.close()


async def test_a_truncated_file_fails_in_the_resident_tier(world: World) -> None:
    name = world.lora("a")
    os.truncate(world.path(name), 2000)
    world.submit("1", name, resident=True)
    await world.settle()
    assert world.states() == {"1": {name: "failed"}}


class RefusedOnce:
    """Loads as the real one does, but finds no memory the first time."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(
        self,
        file: LoraFile,
        *,
        cancelled: Callable[[], bool],
        storage: Storage,
        limiter: RateLimit | None = None,
    ) -> Adapter:
        self.tries += 1
        if self.tries == 1:
            raise AdapterUnavailableError(file.name, "4096 bytes of memory are not there; free some")
        return load_adapter(file, cancelled=cancelled, storage=storage, limiter=limiter)


async def test_a_replaced_file_is_read_again(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    world.lora("a", 6 * CHUNK_BYTES)
    world.page_cache.clear()
    world.now_s += RESTAT_S
    await world.settle()
    assert len(world.page_reads) == 2


async def test_a_file_in_an_earlier_folder_is_read_in_place_of_the_known_one(world: World) -> None:
    name = world.lora("a")
    first = world.root.with_name("first")
    world.catalog = LoraCatalog(lambda: [str(first), str(world.root)])
    world.build(catalog=world.catalog)
    world.submit("1", name)
    await world.settle()
    assert world.page_reads == [world.path(name)]
    first.mkdir()
    shutil.copy(world.path(name), first / name)
    world.now_s += RESTAT_S
    await world.settle()
    assert world.page_reads == [world.path(name), str(first / name)]


async def test_a_removed_file_is_missing(world: World) -> None:
    name = world.lora("a")
    world.submit("1", name)
    await world.settle()
    os.unlink(world.path(name))
    world.now_s += RESTAT_S
    await world.settle()
    assert world.states() == {"1": {name: "missing"}}


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


async def test_a_damaged_file_that_was_downloaded_again_is_read(world: World) -> None:
    """What the catalog has against a file it has against that content alone."""
    world.write("a.safetensors", b"\xff" * 50)
    world.submit("1", "a", resident=True)
    await world.settle()
    assert world.states() == {"1": {"a.safetensors": "failed"}}
    world.lora("a")
    world.now_s += RESTAT_S
    await world.settle()
    assert world.states() == {"1": {"a.safetensors": "ready"}}


async def test_on_a_slow_share_known_loras_are_looked_up_for_a_small_part_of_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def slow(file: LoraFile) -> LoraFile | None:
        looks.append(file.name)
        world.now_s += 0.3
        return as_on_disk(file)

    monkeypatch.setattr("warmstack.prefetch.queue.resolver.as_on_disk", slow)
    for number in range(20):
        world.submit(f"{number}", world.lora(f"l{number}"))
    await world.settle()
    looks.clear()
    end_s = world.now_s + 2 * 20 * 0.3 * REST_SHARE
    while world.now_s < end_s:
        world.now_s += BUSY_POLL_S
        await world.settle()
    assert 20 <= len(looks) <= 60


async def test_a_lora_that_a_share_did_not_find_is_looked_up_soon_after_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it has hung. A queue that was ready is ready again, too."""
    looks: list[str] = []
    is_away = False

    def hang(file: LoraFile) -> LoraFile | None:
        looks.append(file.name)
        world.now_s += 30 if is_away else 0
        return None if is_away else as_on_disk(file)

    monkeypatch.setattr("warmstack.prefetch.queue.resolver.as_on_disk", hang)
    far = world.lora("far")
    world.catalog.refresh()
    world.submit("1", far)
    await world.settle()
    assert world.states() == {"1": {far: "ready"}}
    is_away = True
    for _ in range(2):
        world.now_s += AWAY_S
        await world.settle()
        assert world.states() == {"1": {far: "missing"}}
    looks.clear()
    world.now_s += AWAY_S - 1
    await world.settle()
    assert looks == [], "it rests"
    is_away = False
    world.now_s += 1
    await world.settle()
    assert world.states() == {"1": {far: "ready"}}
    world.lora("far", 9 * CHUNK_BYTES)
    world.now_s += RESTAT_S
    await world.settle()
    assert len(world.page_reads) == 2, "what has hung once is no slow disk for good"


async def test_a_loop_that_stands_still_makes_no_slow_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node pack is imported, say, while a look comes back."""
    is_still = True

    def stand_still() -> None:
        world.now_s += 60

    def look(file: LoraFile) -> LoraFile | None:
        if is_still:
            asyncio.get_running_loop().call_soon(stand_still)
        return as_on_disk(file)

    monkeypatch.setattr("warmstack.prefetch.queue.resolver.as_on_disk", look)
    world.submit("1", name := world.lora("a"))
    await world.settle()
    is_still = False
    world.lora("a", 9 * CHUNK_BYTES)
    world.now_s += RESTAT_S
    await world.settle()
    assert world.page_reads == [world.path(name)] * 2
