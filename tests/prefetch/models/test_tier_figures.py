"""What is told of models that were read ahead: demands, bytes and names."""

from __future__ import annotations

import json
from pathlib import Path

from warmstack.prefetch.prefetcher import BUSY_POLL_S
from warmstack.prefetch.status import FetchStatus, ModelStatus, PrefetchStatus

from ..world import CHUNK_BYTES
from .model_world import ModelWorld


async def test_demands_are_counted_when_a_job_brings_another_model(world: ModelWorld) -> None:
    a, b, c, d = (world.model(f"{name}.safetensors") for name in "abcd")
    world.submit_models("1", a)
    world.start("1")
    await world.settle()
    assert counts(world) == (0, 0, 1), "nobody could have known"
    world.submit_models("2", a, b)
    await world.settle()
    await run_next(world, "1", "2")
    assert counts(world) == (1, 0, 1), "the host has a"
    world.submit_models("3", c)
    await world.settle(reads=False)
    await run_next(world, "2", "3", reads=False)
    assert counts(world) == (1, 1, 1)
    world.submit_models("4", d)
    world.remove("3")
    world.start("4")
    await world.settle()
    models = world.prefetcher.status().models
    assert counts(world) == (1, 1, 2)
    assert (models.demand_bytes, models.hit_bytes) == (4 * 8 * CHUNK_BYTES, 8 * CHUNK_BYTES)
    assert models.wasted_bytes == 0


async def test_the_figures_of_the_loras_do_not_know_of_models(tmp_path: Path) -> None:
    shown = []
    for tier in (True, False):
        world = ModelWorld(tmp_path / str(tier), model_tier=tier)
        lora = world.lora("a")
        world.submit_models("1", world.model("a.safetensors"), loras=(lora,))
        world.start("1")
        world.submit_models("2", world.model("b.safetensors"), loras=(lora, world.lora("b")))
        # Whether the first look at the queue comes before the first look at the folder is a matter of milliseconds, and
        # a name that is not known yet is no demand.
        world.catalog.refresh()
        await world.settle()
        await run_next(world, "1", "2")
        status = world.prefetcher.status()
        shown.append((status.page, status.hits, status.joins, status.misses, status.wasted_bytes, world.states()))
        assert bool(status.models.warmed_bytes) is tier
        await world.close()
    assert shown[0] == shown[1]


async def run_next(world: ModelWorld, before: str, after: str, *, reads: bool = True) -> None:
    world.remove(before)
    world.start(after)
    await world.settle(reads=reads)


def counts(world: ModelWorld) -> tuple[int, int, int]:
    models = world.prefetcher.status().models
    return models.hits, models.joins, models.misses


async def test_a_status_holds_names_and_no_path_and_says_what_is_read(world: ModelWorld) -> None:
    model = world.model("sub/a.safetensors")
    shown: list[PrefetchStatus] = []

    def look(path: str, done_bytes: int) -> None:
        if done_bytes == 3 * CHUNK_BYTES:
            world.now_s += BUSY_POLL_S
            world.prefetcher._publish()
            shown.append(world.prefetcher.status())

    world.on_chunk = look
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    (status,) = shown
    assert str(world.models) not in json.dumps(status)
    assert status.in_flight == (FetchStatus(model, "model", 3 * CHUNK_BYTES, 8 * CHUNK_BYTES),)
    assert status.queue[1].models == (ModelStatus(model, "checkpoints", "loading", 8 * CHUNK_BYTES),)
