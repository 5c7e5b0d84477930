from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
import torch

from warmstack.loaders import (
    LoadCancelledError,
    LoadingMetrics,
    NoCapableLoaderError,
    SafetensorsLoadError,
    in_thread,
    load_loras_batch,
    load_loras_batch_async,
    load_safetensors_robust,
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

    def test_cancelling_is_not_a_failure_to_continue_from(self, saved):
        with pytest.raises(LoadCancelledError):
            load_loras_batch([saved], continue_on_error=True, cancelled=lambda: True)

    def test_an_empty_batch(self):
        assert dict(load_loras_batch([])) == {}

    async def test_awaitable(self, saved, tmp_path, state_dict, same_tensors):
        absent = str(tmp_path / "absent.safetensors")
        batch = await load_loras_batch_async(iter([saved, absent]), continue_on_error=True)
        same_tensors(batch[saved], state_dict)
        assert batch.failures.keys() == {absent}
        with pytest.raises(SafetensorsLoadError):
            await load_loras_batch_async([saved, absent])
