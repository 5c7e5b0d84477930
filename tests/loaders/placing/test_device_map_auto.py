"""`device_map="auto"`: `max_memory` says where tensors go, whatever the format and the strategy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from warmstack.loaders import (
    DeviceMap,
    LoadRequest,
    ModelLoader,
    NoCapableLoaderError,
    SafetensorsLoadError,
    StrategyRegistry,
    drop_file,
    resident_bytes,
)
from warmstack.loaders.placing.max_memory import MaxMemory

STRATEGIES = ("auto", *StrategyRegistry.default().strategies)
BLOCK = {"attn.weight": 400, "ff.weight": 600}
"""Floats of each tensor of a block."""


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """A head of 40 bytes, four blocks of 4000, a tail of 800 that are no floats."""
    found = {"head.weight": torch.rand(10)}
    for number in range(4):
        found |= {f"model.blocks.{number}.{name}": torch.rand(count) for name, count in BLOCK.items()}
    return found | {"tail.ids": torch.arange(100)}


@pytest.fixture
def path(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def sharded(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    weight_map = {}
    for number in range(2):
        shard = dict(list(tensors.items())[number::2])
        save_file(shard, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(shard, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def bytes_by_device(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in tensors.values():
        found[tensor.device.type] = found.get(tensor.device.type, 0) + tensor.nbytes
    return found


def devices_of_blocks(tensors: Mapping[str, torch.Tensor]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        if ".blocks." in key:
            found.setdefault(key.split(".")[2], set()).add(tensor.device.type)
    return found


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "fast_single_file"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_blocks_go_whole_to_the_first_device_with_room(sharded: Path, strategy: str, dtype: torch.dtype | None):
    scale = 1 if dtype is None else 2
    limits = {"meta": f"{9000 // scale} B", "cpu": 40_000}
    loader = ModelLoader(strategy, device_map="auto", max_memory=limits, dtype=dtype)
    result = loader.load_checkpoint(sharded)
    assert sorted(map(sorted, devices_of_blocks(result).values())) == [["cpu"], ["cpu"], ["meta"], ["meta"]]
    assert bytes_by_device(result)["meta"] <= 9000 // scale
    stored = {key: tensor for file in sharded.glob("*.safetensors") for key, tensor in load_file(file).items()}
    assert result.keys() == stored.keys()
    for key, tensor in result.items():
        if tensor.is_cpu:
            assert torch.equal(tensor, stored[key].to(tensor.dtype))
    placed = bytes_by_device(result)
    assert result.reasons[-2:] == (f"{placed['meta']} bytes on meta", f"{placed['cpu']} bytes on cpu")


@pytest.mark.parametrize("strategy", ["auto", "lazy", "streaming", "parallel_async_lazy"])
def test_the_rest_stays_on_disk_where_that_is_listed(path: Path, strategy: str):
    loader = ModelLoader(strategy, device_map="auto", max_memory={"disk": "1TB", "cpu": 9000})
    result = loader.load_checkpoint(path)
    assert bytes_by_device(result)["cpu"] <= 9000
    assert len(devices_of_blocks(result)) == 2
    assert result.reasons[-2].endswith("bytes on disk")
    with pytest.raises(NoCapableLoaderError, match="leaves tensors on disk"):
        ModelLoader("eager", device_map="auto", max_memory={"disk": 0, "cpu": 9000}).load_checkpoint(path)


def test_what_fits_nowhere_is_refused_before_anything_is_read(large):
    drop_file(large[0])
    limits = {"meta": "20MB", "cpu": "10MB"}
    with pytest.raises(SafetensorsLoadError, match=r"needs 75497472 bytes and max_memory has 30000000, .*list 'disk'"):
        ModelLoader(device_map="auto", max_memory=limits).load_checkpoint(large[0])
    assert (resident_bytes(large[0]) or 0) < 10 << 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_limits_all_goes_to_the_device(sharded: Path, path: Path, strategy: str):
    checkpoint = path if strategy == "fast_single_file" else sharded
    result = ModelLoader(strategy, device_map="auto", device="meta").load_checkpoint(checkpoint)
    assert bytes_by_device(result).keys() == {"meta"}


def test_the_memory_of_what_went_elsewhere_is_not_kept(path: Path):
    """Most of the file stays on the CPU, which has no room for the buffer of all of it."""
    save_file({f"blocks.{number}.weight": torch.rand(1 << 20) for number in range(4)}, path)
    limits = {"meta": 5 << 20, "cpu": 12 << 20}
    result = ModelLoader(device_map="auto", max_memory=limits).load_checkpoint(path)
    assert result.metrics.strategy == "streaming"
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in result.values() if tensor.is_cpu
    }
    assert sum(storage.nbytes() for storage in held.values()) == 12 << 20
    with pytest.raises(SafetensorsLoadError, match="'streaming'"):
        ModelLoader("eager", device_map="auto", max_memory=limits).load_checkpoint(path)


@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}])
def test_a_gguf_counts_dequantised(tmp_path: Path, choice: dict[str, Any]):
    element_bytes = 2 if choice else 4
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "flux")
    values = np.random.default_rng(3).normal(size=(8, 64)).astype(np.float32)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    for number in range(3):
        writer.add_tensor(f"blocks.{number}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    whole_bytes = 512 * element_bytes
    loader = ModelLoader(
        "lazy", device_map="auto", max_memory={"meta": whole_bytes, "cpu": whole_bytes, "disk": 0}, **choice
    )
    result = loader.load_checkpoint(tmp_path)
    assert {key: tensor.device.type for key, tensor in result.items()} == {
        "blocks.0.weight": "meta",
        "blocks.1.weight": "cpu",
    }
    assert result.reasons == (
        "GGUF has one way; 'lazy' reads safetensors",
        f"{whole_bytes} bytes on meta",
        f"{whole_bytes} bytes on cpu",
        f"{whole_bytes} bytes on disk",
    )
    with pytest.raises(SafetensorsLoadError, match="without room for"):
        ModelLoader(device_map="auto", max_memory={"cpu": 3 * whole_bytes - 1}, **choice).load_checkpoint(tmp_path)


def test_a_pickle_is_refused_unopened(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="has no header that says what its tensors take"):
        ModelLoader(device_map="auto", max_memory={"cpu": "1GB"}).load_checkpoint(tmp_path / "absent.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pt")
    assert ModelLoader(device_map="auto").load_checkpoint(tmp_path / "model.pt").keys() == {"a"}


def test_a_planned_key_goes_before_every_rule():
    devices = DeviceMap((("a", "cpu"), ("", "meta")), {"a.b": "disk", "c": "cuda:0"})
    assert devices.assign(["a", "a.b", "a.b.c", "c", "d"], "cpu") == {
        "a": "cpu",
        "a.b.c": "cpu",
        "c": "cuda:0",
        "d": "meta",
    }
    assert devices.moves
    assert devices.keeps_on_disk
    assert hash(devices) == hash(DeviceMap(devices.rules))
    assert devices != DeviceMap(devices.rules)


def test_two_names_of_one_gpu_are_one_device():
    limits = MaxMemory.of({"cuda": 10, "cuda:0": 20, "cpu": 100}, places=True)
    request, told = limits.place(LoadRequest(("model",)), lambda: {"a": 8, "b": 8})
    assert request.devices({"a": None, "b": None}) == {"a": "cuda:0", "b": "cpu"}
    assert told == ("8 bytes on cuda:0", "8 bytes on cpu")
