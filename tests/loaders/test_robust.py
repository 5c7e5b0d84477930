from __future__ import annotations

import asyncio
import inspect
import shutil
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    LoadCancelledError,
    LoadingMetrics,
    LoadRequest,
    LoadResult,
    NoCapableLoaderError,
    SafetensorsLoadError,
    batch,
    drop_file,
    in_thread,
    load_loras_batch,
    load_loras_batch_async,
    load_safetensors_robust,
    resident_bytes,
    robust,
)


def test_blocking(saved, state_dict, same_tensors):
    same_tensors(load_safetensors_robust(saved), state_dict)


async def test_awaitable(saved, state_dict, same_tensors):
    loading = load_safetensors_robust(saved, use_async=True)
    assert inspect.isawaitable(loading)
    same_tensors(await loading, state_dict)


async def test_awaiting_does_not_hold_the_loop(saved, monkeypatch):
    """The load waits for something that only the loop does, so it ends only when the loop is free."""
    released = threading.Event()
    to_thread = asyncio.to_thread

    async def held(load, stopped):
        return await to_thread(lambda: (released.wait(), load(stopped))[1])

    monkeypatch.setattr(in_thread.asyncio, "to_thread", held)
    loading = asyncio.ensure_future(load_safetensors_robust(saved, use_async=True))
    await asyncio.sleep(0)
    released.set()
    assert await loading


class TwoGpus(threading.local):
    """As torch has it: every thread begins with the first as its current one."""

    current = 0

    @contextmanager
    def device(self, index: int) -> Iterator[None]:
        before, self.current = self.current, index
        yield
        self.current = before


@pytest.fixture
def second_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = TwoGpus()
    gpus.current = 1
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpus.current)
    monkeypatch.setattr(torch.cuda, "device", gpus.device)


@pytest.mark.usefixtures("second_gpu")
async def test_a_load_in_a_thread_goes_to_the_callers_gpu(saved, tmp_path, monkeypatch):
    used: list[tuple[bool, int]] = []
    load = batch.load_request

    def watch(request, strategy):
        used.append((threading.current_thread() is threading.main_thread(), torch.cuda.current_device()))
        return load(request, strategy)

    monkeypatch.setattr(batch, "load_request", watch)
    monkeypatch.setattr(robust, "load_request", watch)
    other = shutil.copy(saved, tmp_path / "other.safetensors")
    await load_safetensors_robust(saved, use_async=True)
    await load_loras_batch_async([saved, other], strategy="eager")
    assert used == [(False, 1)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
async def test_a_load_in_a_thread_goes_to_the_current_gpu(saved):
    with torch.cuda.device(1):
        loaded = await load_safetensors_robust(saved, "cuda", use_async=True)
        batches = await load_loras_batch_async([saved], "cuda", strategy="eager")
    assert {tensor.device for tensor in (*loaded.values(), *batches[saved].values())} == {torch.device("cuda", 1)}


async def test_cancelling_the_await_stops_the_read():
    started, stopped = threading.Event(), threading.Event()

    def load(cancelled):
        started.set()
        while not cancelled():
            pass
        stopped.set()

    task = asyncio.ensure_future(in_thread.run_in_thread(load))
    await asyncio.to_thread(started.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(stopped.wait)


async def test_a_failure_reaches_who_awaits(tmp_path):
    with pytest.raises(SafetensorsLoadError, match="No such file"):
        await load_safetensors_robust(tmp_path / "absent.safetensors", use_async=True)


def test_kohya_blocks_by_device_map(write_raw):
    header = {
        f"lora_unet_down_blocks_{block}.alpha": {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]}
        for at, block in enumerate([2, 20])
    }
    loaded = load_safetensors_robust(write_raw(header, b"ab"), device_map={"lora_unet_down_blocks_2": "disk"})
    assert loaded.keys() == {"lora_unet_down_blocks_20.alpha"}


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_device(saved, device):
    assert {tensor.device.type for tensor in load_safetensors_robust(saved, device).values()} == {"meta"}


def test_tells_what_it_cost(saved):
    told: list[LoadingMetrics] = []
    load_safetensors_robust(saved, strategy="lazy", measured=told.append)
    assert [(found.strategy, list(found.stages_s)) for found in told] == [("lazy", ["header", "map", "place"])]
    assert told[0].duration_s >= sum(told[0].stages_s.values())
    assert told[0].bytes_per_s > 0


def test_a_refused_strategy_says_why(saved):
    with pytest.raises(NoCapableLoaderError, match="eager: reads whole files"):
        load_safetensors_robust(saved, device_map={"": "disk"}, strategy="eager")


class TestBatch:
    def test_loads_in_the_order_asked_for(self, saved, large, state_dict, same_tensors):
        batch = load_loras_batch([large[0], saved, saved])
        assert list(batch) == [large[0], saved]
        same_tensors(batch[saved], state_dict)
        same_tensors(batch[large[0]], large[1])
        assert not batch.failures

    def test_the_first_failure_is_raised(self, saved, tmp_path):
        with pytest.raises(SafetensorsLoadError, match="No such file"):
            load_loras_batch([saved, tmp_path / "absent.safetensors", saved])

    def test_a_failure_stops_the_rest(self, saved, tmp_path, monkeypatch):
        started: list[str] = []
        load_request = inspect.getmodule(load_loras_batch).load_request

        def noting(request, strategy):
            started.append(request.paths[0])
            return load_request(request, strategy)

        monkeypatch.setattr(inspect.getmodule(load_loras_batch), "load_request", noting)
        absent = str(tmp_path / "absent.safetensors")
        with pytest.raises(SafetensorsLoadError):
            load_loras_batch([absent, saved], workers=1)
        assert started == [absent]

    def test_continuing_keeps_what_loaded_and_why_the_rest_did_not(self, saved, tmp_path, state_dict, same_tensors):
        absent = str(tmp_path / "absent.safetensors")
        batch = load_loras_batch([absent, saved], continue_on_error=True)
        same_tensors(dict(batch)[saved], state_dict)
        assert batch.failures.keys() == {absent}
        assert len(batch) == 1

    @pytest.mark.parametrize(("workers", "files", "at_once"), [(1, 2, 1), (2, 2, 2), (8, 2, 2), (2, 1, 1)])
    def test_files_loaded_at_once_know_of_each_other(self, tmp_path, monkeypatch, workers, files, at_once):
        told: list[int] = []

        def load(request: LoadRequest, strategy: str) -> LoadResult:
            told.append(request.at_once)
            return LoadResult({}, {}, LoadingMetrics(strategy, 1, 0, 0, 0, 0.0, {}))

        monkeypatch.setattr(batch, "load_request", load)
        paths = [tmp_path / f"{index}.safetensors" for index in range(files)]
        for path in paths:
            save_file({"a": torch.zeros(3)}, path)
        load_loras_batch(paths, workers=workers)
        assert told == [at_once] * files

    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_failure_that_is_kept_keeps_nothing_of_what_was_read(self, saved, monkeypatch, workers: int):
        read: list[weakref.ref[torch.Tensor]] = []

        def load(request: LoadRequest, strategy: str) -> LoadResult:
            tensor = torch.ones(3)
            read.append(weakref.ref(tensor))
            try:
                raise RuntimeError("no room")
            except RuntimeError as error:
                raise SafetensorsLoadError(saved, "no room there") from error

        monkeypatch.setattr(batch, "load_request", load)
        loaded = load_loras_batch([saved], workers=workers, continue_on_error=True)
        assert str(loaded.failures[saved].__cause__) == "no room"
        assert [tensor() for tensor in read] == [None]

    def test_cancelling_is_not_a_failure_to_continue_from(self, saved):
        with pytest.raises(LoadCancelledError):
            load_loras_batch([saved], continue_on_error=True, cancelled=lambda: True)

    def test_what_has_no_room_left_is_not_read(self, saved, large, tmp_path, monkeypatch):
        part = {"a": torch.zeros(1000), "ids": torch.zeros(10, dtype=torch.int64)}
        paths = [str(tmp_path / f"{index}.safetensors") for index in range(3)]
        for path in paths:
            save_file(part, path)
        drop_file(large[0])
        batch = load_loras_batch([paths[0], large[0], *paths[1:]], max_bytes=2 * 4080 + 100, continue_on_error=True)
        assert list(batch) == paths[:2]
        assert batch.failures.keys() == {large[0], paths[2]}
        assert "needs 4080 bytes and 100 of the batch's max_bytes are left" in str(batch.failures[paths[2]])
        assert (resident_bytes(large[0]) or 0) < 10 << 20
        with pytest.raises(SafetensorsLoadError, match="max_bytes are left"):
            load_loras_batch(paths, max_bytes=2 * 4080)

    @pytest.mark.parametrize(("max_bytes", "loads"), [(4080 + 2080, True), (4080 + 2079, False)])
    def test_a_cast_needs_room_for_both(self, tmp_path, max_bytes: int, loads: bool):
        """And for a copy of what is not cast, so that what it was read with can go."""
        path = str(tmp_path / "a.safetensors")
        save_file({"a": torch.zeros(1000), "ids": torch.zeros(10, dtype=torch.int64)}, path)
        batch = load_loras_batch([path], dtype=torch.float16, max_bytes=max_bytes, continue_on_error=True)
        assert (path in batch) == loads

    async def test_room_of_an_awaited_batch(self, saved):
        with pytest.raises(SafetensorsLoadError, match="max_bytes are left"):
            await load_loras_batch_async([saved], max_bytes=1)

    def test_a_broken_header_is_a_failure_of_its_own(self, saved, tmp_path):
        batch = load_loras_batch([tmp_path / "absent", saved], max_bytes=1 << 20, continue_on_error=True)
        assert list(batch) == [saved]

    def test_an_empty_batch(self):
        assert dict(load_loras_batch([])) == {}

    async def test_awaitable(self, saved, tmp_path, state_dict, same_tensors):
        absent = str(tmp_path / "absent.safetensors")
        batch = await load_loras_batch_async(iter([saved, absent]), continue_on_error=True)
        same_tensors(batch[saved], state_dict)
        assert batch.failures.keys() == {absent}
        with pytest.raises(SafetensorsLoadError):
            await load_loras_batch_async([saved, absent])
