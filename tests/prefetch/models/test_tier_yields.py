"""What a model read ahead makes way for: every LoRA, the running job on its disk, and the end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.system.daemon_pool import DaemonPool
from warmstack.loaders.system.disk_kind import Disk
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.prefetch.prefetcher import BUSY_POLL_S

from ..world import CHUNK_BYTES, MIB
from .model_world import ModelWorld


async def test_loras_come_first_whoever_needs_them(world: ModelWorld) -> None:
    lora, late = world.lora("a"), world.lora("b")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", world.model("m.safetensors"), loras=(lora,))
    world.submit_models("3", loras=(late,))
    await world.settle(reads=False)
    assert len(world.reads.waiting) == 1, "the thread of the LoRAs: that of the model would read beside it"
    await world.settle()
    assert [Path(path).name for path in world.page_reads] == [lora, late, "m.safetensors"]


async def test_a_model_that_has_not_begun_gives_way_and_comes_back(world: ModelWorld) -> None:
    lora = world.lora("a")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", world.model("m.safetensors"))
    await world.settle(reads=False)
    assert len(world.reads.waiting) == 1
    world.submit_models("3", loras=(lora,))
    await world.settle(reads=False)
    await world.settle()
    assert [Path(path).name for path in world.page_reads] == [lora, "m.safetensors"]
    assert world.prefetcher.status().models.warmed_bytes == 8 * CHUNK_BYTES


@pytest.mark.parametrize(("readers", "beside"), [(None, True), (1, False), (2, False), (3, True)])
async def test_no_more_are_read_at_a_time_than_the_user_has_set(
    tmp_path: Path, readers: int | None, beside: bool
) -> None:
    """LoRAs and models together, on all disks."""
    world = ModelWorld(tmp_path, concurrency=readers)
    world.disk_under = lambda path: Disk(os.path.basename(path), "network")
    loras = [world.lora(name) for name in ("near/a", "far/b")]
    world.submit_models("1", loras=tuple(loras))
    await world.settle(reads=False)
    world.submit_models("2", world.model("m.safetensors"))
    await world.settle(reads=False)
    assert len(world.reads.waiting) == min(2, readers or 2) + beside
    await world.close()


async def test_a_read_that_gives_way_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """In real threads: the LoRA's read begins and ends between two chunks of the model's, which could go on long before
    that: it asks meanwhile whether it may."""
    world = ModelWorld(tmp_path)
    model, lora = world.model("m.safetensors"), world.lora("a")
    reached, go_on, asked = threading.Event(), threading.Event(), threading.Semaphore(0)
    chunks: list[tuple[str, int]] = []
    warm_file = world.machine.warm_file

    def watched(path: str, *, cancelled: Callable[[], bool], limiter: RateLimit | None = None) -> int:
        def ask() -> bool:
            if Path(path).name == model and go_on.is_set():
                asked.release()
            return cancelled()

        return warm_file(path, cancelled=ask, limiter=limiter)

    def on_chunk(path: str, done_bytes: int) -> None:
        chunks.append((Path(path).name, done_bytes))
        if (Path(path).name, done_bytes) == (model, 3 * CHUNK_BYTES):
            reached.set()
            assert go_on.wait(30)
        if (Path(path).name, done_bytes) == (lora, CHUNK_BYTES):
            # A model that does not give way asks twice for each chunk.
            assert all(asked.acquire(timeout=30) for _ in range(4))

    world.on_chunk = on_chunk
    world.machine = replace(world.machine, warm_file=watched)
    task = threaded(world)
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await until(reached.is_set, world)
    world.submit_models("3", loras=(lora,))
    await until(lambda: (lora, 0) in chunks, world)
    go_on.set()
    await until(lambda: (model, 7 * CHUNK_BYTES) in chunks, world)
    await until(lambda: world.model_states()["2"][model] == "ready", world)
    world.prefetcher.close()
    await task
    assert [done for name, done in chunks if name == model] == [i * CHUNK_BYTES for i in range(8)]
    at = chunks.index((model, 3 * CHUNK_BYTES))
    between = chunks[at + 1 : chunks.index((model, 4 * CHUNK_BYTES))]
    assert between == [chunk for chunk in chunks if chunk[0] == lora] and len(between) > 3


async def test_closing_ends_a_read_that_gives_way(tmp_path: Path) -> None:
    """Held back behind a LoRA, it would never look whether it may end."""
    world = ModelWorld(tmp_path)
    model, lora = world.model("m.safetensors"), world.lora("a")
    may_end = threading.Event()

    def on_chunk(path: str, done_bytes: int) -> None:
        chunks.append(Path(path).name)
        if (Path(path).name, done_bytes) in ((model, CHUNK_BYTES), (lora, 0)):
            assert may_end.wait(30)

    chunks: list[str] = []
    world.on_chunk = on_chunk
    task = threaded(world)
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await until(lambda: chunks == [model, model], world)
    world.submit_models("3", loras=(lora,))
    await until(lambda: lora in chunks, world)
    world.prefetcher.close()
    may_end.set()
    async with asyncio.timeout(30):
        await task
    assert chunks.count(model) <= 3


def threaded(world: ModelWorld) -> asyncio.Task[None]:
    """The prefetcher at work with readers in threads."""
    world.machine = replace(world.machine, make_pool=DaemonPool)
    return asyncio.create_task(world.build().run())


async def until(holds: Any, world: ModelWorld) -> None:
    """Lets the loop run until it is so; the pool has threads of its own."""
    async with asyncio.timeout(30):
        while not holds():
            world.prefetcher.wake()
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("disk", "waits"), [("of models", True), ("another", False)])
async def test_a_model_waits_while_the_running_job_reads_its_own_from_the_same_disk(
    world: ModelWorld, disk: str, waits: bool
) -> None:
    """The LoRAs of the running job lie on a disk of their own."""
    (world.models / "elsewhere").mkdir()
    places = {str(world.models): "of models", str(world.models / "elsewhere"): disk, str(world.root): "of loras"}
    world.disk_under = lambda path: Disk(places[path], "rotating")
    own, following = world.model("own.safetensors"), world.model("elsewhere/next.safetensors")
    world.submit_models("1", own, loras=(world.lora("a"),))
    world.start("1")
    await world.settle()
    for _ in range(3):
        world.job_read_bytes = (world.job_read_bytes or 0) + 64 * MIB
        world.now_s += BUSY_POLL_S
        await world.settle()
    world.submit_models("2", following)
    await world.settle()
    assert world.read_models() == ([] if waits else [following])
    world.now_s += 10.0
    await world.settle()
    assert world.read_models() == [following]
