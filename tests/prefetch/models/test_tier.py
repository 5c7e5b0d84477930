"""Models read ahead: after every LoRA, for the jobs that come, within the memory that is free, and told as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

from warmstack.prefetch.models.board import RELOOK_S
from warmstack.prefetch.planning.timetable import MARGIN_JOBS, MARGIN_JUMPS
from warmstack.prefetch.prefetcher import MEMORY_TICK_S
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.reading.unreadable import RETRY_S
from warmstack.prefetch.rest import REST_SHARE

from ..world import CHUNK_BYTES, MIB
from .model_world import ModelWorld


async def test_the_models_of_the_next_jobs_are_read_once_in_their_order_and_never_those_of_the_running_job(
    world: ModelWorld,
) -> None:
    a, b, c = (world.model(f"{name}.safetensors") for name in "abc")
    world.submit_models("1", a)
    world.start("1")
    world.submit_models("2", b, a)
    world.submit_models("3", c, b)
    await world.settle()
    assert world.read_models() == [b, c]
    assert world.model_states() == {
        "1": {a: "in_use"},
        "2": {b: "ready", a: "in_use"},
        "3": {c: "ready", b: "ready"},
    }
    world.remove("1")
    await world.settle()
    world.start("2")
    await world.settle()
    assert world.read_models() == [b, c]


async def test_between_two_jobs_the_models_of_the_first_are_still_with_the_host(world: ModelWorld) -> None:
    a = world.model("a.safetensors")
    world.submit_models("1", a)
    world.start("1")
    await world.settle()
    world.submit_models("2", a)
    world.remove("1")
    await world.settle()
    assert world.read_models() == []


async def test_only_what_fits_beside_the_loras_and_the_running_job(tmp_path: Path) -> None:
    world = ModelWorld(tmp_path, page_budget_bytes=20 * CHUNK_BYTES)
    big, small = world.model("big.safetensors", 18 * CHUNK_BYTES), world.model("small.safetensors")
    lora = world.lora("a", 4 * CHUNK_BYTES)
    world.submit_models("1", loras=(lora,))
    world.start("1")
    world.submit_models("2", big, small)
    await world.settle()
    assert world.read_models() == [small]
    assert world.model_states()["2"] == {big: "cold", small: "ready"}
    world.submit_models("3", big)
    world.remove("1")
    await world.settle()
    assert world.read_models() == [small, big], "the LoRA has gone and left its room"
    await world.close()


async def test_memory_that_the_running_job_may_need_is_left_to_it(tmp_path: Path) -> None:
    world = ModelWorld(tmp_path, headroom_bytes=MIB)
    running, following = world.model("r.safetensors", 60 * CHUNK_BYTES), world.model("n.safetensors", 40 * CHUNK_BYTES)
    world.available_bytes = MIB + 99 * CHUNK_BYTES
    world.submit_models("1", running)
    world.start("1")
    world.submit_models("2", following)
    await world.settle()
    assert world.read_models() == []
    world.available_bytes = MIB + 100 * CHUNK_BYTES
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.read_models() == [following]
    await world.close()


async def test_short_of_memory_a_read_stops_and_nothing_is_started(world: ModelWorld) -> None:
    a, b = world.model("a.safetensors"), world.model("b.safetensors")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", a, b)
    await world.settle(reads=False)
    world.available_bytes = 0
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.read_models() == []
    assert world.prefetcher.status().under_pressure


async def test_a_job_that_goes_takes_its_read_with_it_and_what_was_read_was_in_vain(world: ModelWorld) -> None:
    a, b = world.model("a.safetensors"), world.model("b.safetensors")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", a)
    await world.settle()
    world.submit_models("3", b)

    def leave(path: str, done_bytes: int) -> None:
        if done_bytes == 2 * CHUNK_BYTES:
            world.remove("3")
            (reading,) = world.prefetcher._models.readings
            reading.cancel()

    world.on_chunk = leave
    await world.settle()
    world.remove("2")
    await world.settle()
    models = world.prefetcher.status().models
    assert models.warmed_bytes == models.wasted_bytes == 10 * CHUNK_BYTES
    assert models.hits + models.joins + models.misses == 0


async def test_switched_off_nothing_is_looked_for_and_a_read_stops(world: ModelWorld) -> None:
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", world.model("a.safetensors"))
    await world.settle(reads=False)
    world.prefetcher.configure(world.settings.updated({"model_tier": False}))
    await world.settle()
    assert world.read_models() == []
    assert world.model_states() == {"1": {}, "2": {}}
    looked_for = len(world.found)
    world.submit_models("3", world.model("b.safetensors"))
    await world.settle()
    assert (world.read_models(), len(world.found)) == ([], looked_for)
    world.prefetcher.configure(world.settings)
    await world.settle()
    assert world.read_models() == ["a.safetensors", "b.safetensors"]


async def test_a_front_end_without_models_shows_none(tmp_path: Path) -> None:
    world = ModelWorld(tmp_path)
    world.build(models=None)
    world.submit_models("1", world.model("a.safetensors"))
    await world.settle()
    assert (world.read_models(), world.model_states()) == ([], {"1": {}})
    await world.close()


async def test_pickles_are_never_opened_and_names_without_a_file_are_not_shown(world: ModelWorld) -> None:
    pickle = world.model("old.ckpt")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", pickle, "gone.safetensors")
    await world.settle()
    assert world.page_reads == []
    assert world.model_states()["2"] == {pickle: "cold"}


async def test_all_shards_of_a_model_are_read(world: ModelWorld) -> None:
    shards = [world.model(f"m.safetensors/{i}.safetensors") for i in range(3)]
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", "m.safetensors")
    await world.settle()
    assert world.read_models() == shards


async def test_a_read_is_as_late_as_measured_times_allow(tmp_path: Path) -> None:
    world = ModelWorld(tmp_path, just_in_time=True)
    first, last = world.model("a.safetensors", 2 * MIB), world.model("b.safetensors", 2 * MIB)

    def a_second_per_mib(path: str, done_bytes: int) -> None:
        world.now_s += CHUNK_BYTES / MIB

    world.on_chunk = a_second_per_mib
    world.submit_models("0", first)
    await world.settle()  # measures the disk
    world.start("0")
    await world.settle()
    world.now_s += 10.0
    world.remove("0")
    await world.settle()  # measures a job
    for i in range(1, 7):
        world.submit_models(str(i))
    world.submit_models("7", last)
    for i in range(1, 4):
        world.start(str(i))
        await world.settle()
        world.now_s += 10.0
        world.remove(str(i))
    world.start("4")
    await world.settle()
    due_in_s = (10.0 + 2 * 10.0) - 2.0 - (MARGIN_JOBS * 10.0 + MARGIN_JUMPS * 2.0)
    world.now_s += due_in_s - 0.5
    await world.settle()
    assert world.read_models() == [first]
    world.now_s += 0.5
    await world.settle()
    assert world.read_models() == [first, last]
    await world.close()


async def test_a_file_that_cannot_be_read_is_tried_again_once_it_changes(world: ModelWorld) -> None:
    model = world.model("a.safetensors")

    def broken(path: str, done_bytes: int) -> None:
        raise OSError(5, "Input/output error", path)

    world.on_chunk = broken
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    world.submit_models("3", model)
    await world.settle()
    assert world.read_models() == [model]
    (row,) = world.prefetcher.status().queue[1].models
    assert row.state == "failed" and "Input/output error" in row.problem and str(world.models) not in row.problem
    world.on_chunk = lambda path, done_bytes: None
    world.model(model, 9 * CHUNK_BYTES)
    world.now_s += RELOOK_S
    await world.settle()
    assert world.read_models() == [model, model]
    assert world.model_states()["2"] == {model: "ready"}


async def test_a_drive_that_was_gone_is_tried_again_after_a_while(world: ModelWorld) -> None:
    model = world.model("a.safetensors")

    def gone(path: str, done_bytes: int) -> None:
        raise OSError(112, "Host is down", path)

    world.on_chunk = gone
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    for reads in (1, 2):
        for _ in range(3):
            await world.settle()
        assert world.read_models() == [model] * reads
        assert world.model_states()["2"] == {model: "failed"}
        world.now_s += RETRY_S
    world.on_chunk = lambda path, done_bytes: None
    await world.settle()
    assert world.model_states()["2"] == {model: "ready"}


async def test_a_bad_sector_takes_little_of_its_disk_and_is_counted_once(world: ModelWorld) -> None:
    model = world.model("a.safetensors")

    def fail(path: str, done: int) -> None:
        if done == 2 * CHUNK_BYTES:
            world.now_s += 10.0
            raise OSError(5, "Input/output error", path)

    world.on_chunk = fail
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    for reads in (1, 2, 3):
        await world.settle()
        world.now_s += (REST_SHARE - 1) * 10.0
        await world.settle()
        assert len(world.read_models()) == reads
        assert world.prefetcher.status().models.warmed_bytes == 2 * CHUNK_BYTES
        world.now_s += 10.0


async def test_a_read_that_fails_late_rests_for_what_failed_and_not_for_what_was_read(world: ModelWorld) -> None:
    model = world.model("a.safetensors")

    def fail(path: str, done: int) -> None:
        if done == 3 * CHUNK_BYTES:
            raise OSError(112, "Host is down", path)
        world.now_s += 10.0

    world.on_chunk = fail
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    for reads in (1, 2, 3):
        assert len(world.read_models()) == reads
        world.now_s += RETRY_S
        await world.settle()


async def test_pages_that_the_kernel_takes_back_are_read_again(world: ModelWorld) -> None:
    model = world.model("a.safetensors")
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    world.page_cache.clear()
    world.now_s += MEMORY_TICK_S
    await world.settle()
    assert world.read_models() == [model, model]


async def test_what_is_in_the_page_cache_is_not_read(world: ModelWorld) -> None:
    model = world.model("a.safetensors")
    world.page_cache[str(world.models / model)] = 8 * CHUNK_BYTES
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    assert world.read_models() == []
    assert world.model_states()["2"] == {model: "ready"}


async def test_names_are_looked_up_once_and_again_when_it_is_time(world: ModelWorld) -> None:
    model = world.model("a.safetensors")
    for job_id in "123":
        world.submit_models(job_id, model)
    await world.settle()
    world.submit_models("4", model)
    await world.settle()
    assert world.found == [model]
    world.now_s += RELOOK_S
    await world.settle()
    assert world.found == [model, model]


def test_a_payload_without_models_costs_no_look_up(tmp_path: Path) -> None:
    world = ModelWorld(tmp_path)

    async def run() -> None:
        world.queue.append(QueuedJob("1", {"1": {"class_type": "KSampler", "inputs": {}}}))
        await world.settle()
        await world.close()

    asyncio.run(run())
    assert world.found == []


async def test_the_odd_page_that_vanishes_is_not_worth_a_read(world: ModelWorld) -> None:
    model = world.model("a.safetensors", 128 * CHUNK_BYTES)
    world.submit_models("1")
    world.start("1")
    world.submit_models("2", model)
    await world.settle()
    figures = world.prefetcher.status().models
    for lost_chunks, reads, state in ((8, 0, "ready"), (9, 1, "loading")):
        world.page_cache[str(world.models / model)] = (128 - lost_chunks) * CHUNK_BYTES
        world.now_s += MEMORY_TICK_S
        await world.settle(reads=False)
        assert (world.model_states()["2"], len(world.reads.waiting)) == ({model: state}, reads)
        assert world.prefetcher.status().models == figures
    await world.settle()
    assert world.model_states()["2"] == {model: "ready"}
    assert world.prefetcher.status().models.warmed_bytes == 2 * figures.warmed_bytes
    assert world.read_models() == [model, model]
