"""Tensors to their GPUs, on a fake one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    DeviceTransfer,
    FakeDevice,
    LoadCancelledError,
    LoadRequest,
    ModelLoader,
    SafetensorsLoadError,
)
from warmstack.loaders.strategies import gathering
from warmstack.loaders.strategies.placement import send_tensors
from warmstack.loaders.upload import uploads as module
from warmstack.loaders.upload.copy_device import CopyEvent
from warmstack.loaders.upload.uploads import Uploads


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 1000)
    monkeypatch.setattr(module, "_LEAST_BYTES", 100)


def busy(device: FakeDevice) -> CopyEvent:
    """Gives the computing stream something to do; the answer tells when it is done."""
    device.read_later(device.allocate(4, 0))
    return device.queued()


class Garage:
    """Makes fake devices and remembers them."""

    def __init__(self, **options: int) -> None:
        self.made: dict[str, FakeDevice] = {}
        self._options = options

    def __call__(self, device: str) -> FakeDevice:
        return self.made.setdefault(device, FakeDevice(**self._options))


SOURCES = {
    "a": torch.arange(100.0),
    "ids": torch.arange(90),
    "b": torch.arange(400.0).view(20, 20).T,
    "bias": torch.arange(5.0),
    "c": torch.arange(120.0),
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_everything_arrives_in_batches_and_is_cast_there(small_batches: None, dtype: torch.dtype | None):
    garage = Garage(lag=1 << 30)
    devices = {"a": "cuda:0", "ids": "cuda:0", "b": "cuda:0", "bias": "cpu", "c": "cuda:1"}
    with Uploads(garage) as uploads:
        placed = send_tensors("model", SOURCES, devices, dtype, uploads)
    assert set(placed) == SOURCES.keys() - {"bias"}
    for key, arrived in placed.items():
        tensor = SOURCES[key]
        wanted = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
        assert torch.equal(arrived, wanted), key
    assert {device: len(fake.events) for device, fake in garage.made.items()} == {"cuda:0": 3, "cuda:1": 1}
    assert [garage.made[device].owns(placed[key]) for key, device in (("a", "cuda:0"), ("ids", "cuda:0"))] == [
        dtype is None,
        True,
    ]
    assert all((fake.in_flight, fake.pinned_bytes) == (0, 0) for fake in garage.made.values())
    assert all(event.waited for fake in garage.made.values() for event in fake.events), "there for one stream only"


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_who_loads_waits_for_the_casts_and_for_no_other_work(small_batches: None, dtype: torch.dtype | None):
    garage = Garage()
    with Uploads(garage) as uploads:
        before = busy(garage("cuda:0"))
        send_tensors("model", SOURCES, dict.fromkeys(SOURCES, "cuda:0"), dtype, uploads)
        assert not before.done
    assert before.done == (dtype is not None), "a cast is done after the work that was queued before it"


def test_who_loads_waits_for_what_was_made_on_the_device(monkeypatch: pytest.MonkeyPatch):
    garage, making = Garage(), []

    def cast_there(_path: str, _key: str, tensor: torch.Tensor, device: str, _dtype: torch.dtype) -> torch.Tensor:
        making.append(busy(garage(device)))
        return tensor

    monkeypatch.setattr(gathering, "Uploads", partial(Uploads, garage))
    monkeypatch.setattr(gathering, "place_tensor", cast_there)
    gathered = gathering.Gathering(LoadRequest(("model.gguf",), device="cuda:0"))
    gathered.add("model.gguf", {key: torch.empty(3, device="meta") for key in "ab"})
    assert [moment.done for moment in making] == [False, False]
    gathered.result("gguf")
    assert [moment.done for moment in making] == [True, True]


@pytest.mark.gpu
async def test_what_a_gpu_casts_is_there_for_every_stream(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    weights = {str(index): torch.randn(1 << 20) for index in range(4)}
    save_file(weights, path)
    loader, side = ModelLoader(dtype=torch.bfloat16, device="cuda"), torch.cuda.Stream()
    # What the allocator hands out again holds no weights.
    for tensor in (await loader.load_shards_async([path])).values():
        tensor.zero_()
    del tensor
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    loaded = await loader.load_shards_async([path])
    with torch.cuda.stream(side):
        copies = {key: tensor.clone() for key, tensor in loaded.items()}
    side.synchronize()
    for key, weight in weights.items():
        assert torch.equal(copies[key].cpu(), weight.to(torch.bfloat16)), key


def test_what_is_small_goes_at_once(small_batches: None):
    garage = Garage()
    with Uploads(garage) as uploads, pytest.raises(SafetensorsLoadError, match="'bias' cannot go to cuda:77"):
        send_tensors("model", SOURCES, {"bias": "cuda:77"}, None, uploads)
    assert garage.made == {}


def test_a_device_that_is_full_names_the_tensor(small_batches: None):
    with (
        Uploads(Garage(memory_limit_bytes=10)) as uploads,
        pytest.raises(SafetensorsLoadError, match=r"model: 'a' cannot go to cuda:0: no room for \d+ bytes"),
    ):
        send_tensors("model", SOURCES, dict.fromkeys(SOURCES, "cuda:0"), None, uploads)


def test_a_cancel_is_seen_before_the_next_batch(small_batches: None):
    garage = Garage()

    def cancelled() -> bool:
        return "cuda:0" in garage.made and garage.made["cuda:0"].copies == 1

    with Uploads(garage) as uploads, pytest.raises(LoadCancelledError):
        send_tensors("model", SOURCES, dict.fromkeys(SOURCES, "cuda:0"), None, uploads, cancelled)
    assert garage.made["cuda:0"].copies == 1
    assert garage.made["cuda:0"].pinned_bytes == 0


@pytest.mark.parametrize("strategy", ["eager", "lazy", "fast_single_file", "parallel_async_lazy"])
def test_a_cancel_stops_a_load_while_it_is_being_sent(large, monkeypatch: pytest.MonkeyPatch, strategy: str):
    garage = Garage()
    monkeypatch.setattr(gathering, "Uploads", partial(Uploads, garage))

    def cancelled() -> bool:
        return "cuda:0" in garage.made and garage.made["cuda:0"].copies >= 1

    with pytest.raises(LoadCancelledError):
        ModelLoader(strategy, device="cuda:0").load_checkpoint(large[0], cancelled=cancelled)
    # One thread may have had a slot when another one saw the cancel.
    assert garage.made["cuda:0"].copies <= 8


def test_what_is_elsewhere_already_is_not_sent():
    with Uploads(Garage()) as uploads:
        there = {"a": torch.empty(1 << 20, device="meta")}
        assert send_tensors("model", there, {"a": "meta"}, None, uploads) == {}
        assert send_tensors("model", there, {"a": "cuda:0"}, None, uploads) == {}


def test_a_tensor_that_outlives_the_others_keeps_its_batch_alone(small_batches: None):
    garage = Garage()
    with Uploads(garage) as uploads:
        placed = send_tensors("model", SOURCES, dict.fromkeys(SOURCES, "cuda:0"), None, uploads)
    kept = placed["c"]
    placed.clear()
    assert garage.made["cuda:0"].allocated_bytes < 1000
    assert torch.equal(kept, SOURCES["c"])


def test_the_staging_memory_goes_with_the_load():
    device = FakeDevice()
    with DeviceTransfer(device, slot_bytes=64) as transfer:
        transfer.upload("model", SOURCES)
        assert device.pinned_bytes
    assert (device.pinned_bytes, device.in_flight) == (0, 0)
