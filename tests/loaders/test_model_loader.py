from __future__ import annotations

import asyncio
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    LoadCancelledError,
    LoadProgress,
    MaxMemory,
    ModelLoader,
    NoCapableLoaderError,
    SafetensorsLoadError,
    SafetensorsValidationError,
    StrategyRegistry,
    check_shards,
    drop_file,
    model_loader,
    resident_bytes,
)
from warmstack.loaders.gguf.on_numpy import refusal
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

from .gguf.gguf_files import RawTensor, gguf_bytes

STRATEGIES = ("auto", *StrategyRegistry.default().strategies)
MANY_FILES = [name for name in STRATEGIES if name != "fast_single_file"]


@pytest.fixture
def sharded(tmp_path: Path, state_dict: dict[str, torch.Tensor]) -> Path:
    """The folder of a checkpoint of three shards and an index."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weight_map = {}
    for number in range(3):
        shard = dict(list(state_dict.items())[number::3])
        save_file(shard, folder / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(shard, f"model-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def gguf_values() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(6, 64)).astype(np.float32)


def write_gguf(folder: Path) -> Path:
    """A quantised matrix and two vectors."""
    values = gguf_values()
    writer = gguf.GGUFWriter(folder / "model.gguf", "flux")
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("block.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("block.bias", values[0])
    writer.add_tensor("other.bias", values[1])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return folder / "model.gguf"


class TestCheckpoint:
    @pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "parallel"])
    def test_one_file(self, saved, state_dict, same_tensors, strategy: str):
        result = ModelLoader(strategy).load_checkpoint(saved)
        same_tensors(result.tensors, state_dict)
        assert strategy in ("auto", result.metrics.strategy)

    def test_a_refusal_says_why(self, saved):
        with pytest.raises(NoCapableLoaderError, match="wants at least 2 files, not 1"):
            ModelLoader("parallel").load_checkpoint(saved)

    @pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
    def test_an_index_or_its_folder(self, sharded, state_dict, same_tensors, name: str):
        same_tensors(ModelLoader().load_checkpoint(sharded / name).tensors, state_dict)

    @pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".pt", ".ckpt", ".bin", ".pth"])
    def test_every_format(self, tmp_path, state_dict, same_tensors, suffix: str):
        save = save_file if suffix in (".safetensors", ".sft") else torch.save
        save(state_dict, tmp_path / f"model{suffix}")
        loader = ModelLoader(dtype=torch.float64, device_map={"ints": "disk"})
        expected = {
            key: tensor.double() if tensor.is_floating_point() else tensor
            for key, tensor in state_dict.items()
            if not key.startswith("ints")
        }
        same_tensors(loader.load_checkpoint(tmp_path / f"model{suffix}").tensors, expected)
        same_tensors(loader.load_checkpoint(tmp_path).tensors, expected)

    @pytest.mark.parametrize("dtype", [None, torch.float16])
    def test_gguf(self, tmp_path, dtype: torch.dtype | None):
        write_gguf(tmp_path)
        packed = gguf.quants.quantize(gguf_values(), gguf.GGMLQuantizationType.Q8_0)
        expected = torch.from_numpy(gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
        seen: list[LoadProgress] = []
        result = ModelLoader(dtype=dtype, device_map={"other": "disk"}).load_checkpoint(tmp_path, progress=seen.append)
        assert seen[-1].done_bytes == seen[-1].total_bytes == result.metrics.loaded_bytes
        assert result.keys() == {"block.weight", "block.bias"}
        assert torch.equal(result["block.weight"], expected.to(dtype or torch.float32))
        assert result["block.bias"].dtype == (dtype or torch.float32)
        assert result.metadata["general.architecture"] == "flux"
        assert result.metrics.strategy == "gguf"

    @pytest.mark.parametrize("selected", [True, False])
    def test_a_type_that_nothing_dequantises_is_refused_before_anything_is_read(self, tmp_path, selected: bool):
        kind = next(kind for kind in GGUF_TYPES.values() if refusal(kind) and not kind.plain)
        tensors = [
            RawTensor("first", [4], GGUF_TYPES["F32"].code, 0),
            RawTensor("odd", [kind.block_elements], kind.code, 32),
        ]
        (tmp_path / "model.gguf").write_bytes(gguf_bytes(tensors, data=bytes(32 + kind.block_bytes)))
        seen: list[LoadProgress] = []
        loader = ModelLoader(device_map=None if selected else {"odd": "disk"})
        if not selected:
            assert loader.load_checkpoint(tmp_path).keys() == {"first"}
            return
        with pytest.raises(SafetensorsLoadError, match=f"'odd' stays packed: nothing dequantises {kind.name}"):
            loader.load_checkpoint(tmp_path, progress=seen.append)
        assert seen == []

    @pytest.mark.parametrize("strategy", ["auto", "lazy"])
    def test_a_format_with_one_way_says_that_no_strategy_was_asked(self, tmp_path, state_dict, strategy: str):
        torch.save(state_dict, tmp_path / "model.pt")
        loader = ModelLoader(strategy)
        packed, pickled = (loader.load_checkpoint(path) for path in (write_gguf(tmp_path), tmp_path / "model.pt"))
        named = strategy != "auto"
        assert packed.reasons == ("GGUF has one way; 'lazy' reads safetensors",) * named
        assert pickled.reasons == (".pt has one way; 'lazy' reads safetensors",) * named

    def test_a_strategy_that_does_not_exist_is_refused_whatever_the_format(self, tmp_path):
        write_gguf(tmp_path)
        with pytest.raises(ValueError, match="no strategy 'warp'"):
            ModelLoader("warp").load_checkpoint(tmp_path)

    def test_a_gguf_that_is_none_is_never_unpickled(self, tmp_path, state_dict):
        torch.save(state_dict, tmp_path / "model.gguf")
        with pytest.raises(SafetensorsLoadError, match="GGUF"):
            ModelLoader().load_checkpoint(tmp_path / "model.gguf")

    def test_a_folder_with_two_checkpoints_is_ambiguous(self, sharded):
        os.unlink(sharded / "model.safetensors.index.json")
        with pytest.raises(SafetensorsLoadError, match=r"holds model-0\.safetensors, model-1\.safetensors"):
            ModelLoader().load_checkpoint(sharded)

    def test_a_folder_that_may_not_be_listed(self, tmp_path, monkeypatch):
        def refuse(path: str) -> list[str]:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "listdir", refuse)
        with pytest.raises(SafetensorsLoadError, match="Permission denied"):
            ModelLoader().load_checkpoint(tmp_path)

    def test_a_folder_without_any(self, tmp_path):
        with pytest.raises(SafetensorsLoadError, match="without weight files"):
            ModelLoader().load_checkpoint(tmp_path)


class TestShards:
    @pytest.mark.parametrize("strategy", MANY_FILES)
    def test_with_and_without_an_index(self, sharded, state_dict, same_tensors, strategy: str):
        loader = ModelLoader(strategy)
        same_tensors(loader.load_shards(files(sharded)).tensors, state_dict)
        same_tensors(loader.load_shards([], sharded / "model.safetensors.index.json").tensors, state_dict)

    @pytest.mark.parametrize("strategy", MANY_FILES)
    async def test_awaited(self, sharded, state_dict, same_tensors, strategy: str):
        same_tensors((await ModelLoader(strategy).load_shards_async(files(sharded))).tensors, state_dict)

    @pytest.mark.parametrize("strategy", MANY_FILES)
    def test_nothing_is_read_of_shards_that_disagree(self, sharded, large, strategy: str):
        index = sharded / "model.safetensors.index.json"
        document = json.loads(index.read_text())
        del document["weight_map"]["conv"]
        index.write_text(json.dumps(document))
        drop_file(large[0])
        os.replace(large[0], sharded / "model-9.safetensors")
        with pytest.raises(SafetensorsValidationError, match="not in the index"):
            ModelLoader(strategy).load_shards(files(sharded), index)
        assert (resident_bytes(sharded / "model-9.safetensors") or 0) < 10 << 20

    async def test_cancelling_the_task(self, large, tmp_path):
        other = tmp_path / "other.safetensors"
        save_file({"other": torch.ones(1)}, other)
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        seen: list[LoadProgress] = []

        def note(progress: LoadProgress) -> None:
            seen.append(progress)
            loop.call_soon_threadsafe(started.set)

        loader = ModelLoader("streaming", max_bytes=1)
        task = asyncio.ensure_future(loader.load_shards_async([large[0], other], progress=note))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize("watched", [False, True])
    def test_reading_the_headers_is_part_of_what_a_load_took(self, sharded, monkeypatch, watched: bool):
        def slow_check(paths, index, **_):
            until_s = time.perf_counter() + 0.02
            while time.perf_counter() < until_s:
                pass
            return check_shards(paths, index)

        monkeypatch.setattr(model_loader, "check_shards", slow_check)
        progress = [].append if watched else None
        metrics = ModelLoader("eager").load_checkpoint(sharded, progress=progress).metrics
        assert metrics.duration_s > metrics.stages_s["header"] >= 0.02
        assert list(metrics.stages_s) == ["header", "read", "place"]


class TestChoices:
    @pytest.mark.parametrize("strategy", MANY_FILES)
    def test_progress_reaches_the_whole(self, sharded, state_dict, strategy: str):
        seen: list[LoadProgress] = []
        ModelLoader(strategy).load_shards(files(sharded), progress=seen.append)
        total_bytes = sum(tensor.nbytes for tensor in state_dict.values())
        assert seen[-1][:2] == (total_bytes, total_bytes)
        assert {progress.total_bytes for progress in seen} == {total_bytes}
        done = [progress.done_bytes for progress in seen]
        assert done == sorted(done)
        assert {progress.path for progress in seen} <= {str(path) for path in files(sharded)}

    def test_cancelling(self, large):
        with pytest.raises(LoadCancelledError):
            ModelLoader().load_checkpoint(large[0], cancelled=lambda: True)

    def test_max_memory_is_checked_before_reading(self, large):
        drop_file(large[0])
        with pytest.raises(SafetensorsLoadError, match="bytes on cpu and may take 10000000"):
            ModelLoader(max_memory={"cpu": "10MB"}).load_checkpoint(large[0])
        assert (resident_bytes(large[0]) or 0) < 10 << 20

    def test_max_memory_counts_the_cast_and_the_selection(self, saved, state_dict):
        floats = [tensor for tensor in state_dict.values() if tensor.is_floating_point()]
        rest = [tensor for tensor in state_dict.values() if not tensor.is_floating_point()]
        needed_bytes = sum(8 * tensor.numel() for tensor in floats) + sum(tensor.nbytes for tensor in rest)
        load = ModelLoader(max_memory={"cpu": needed_bytes}, dtype=torch.float64).load_checkpoint
        assert load(saved)
        with pytest.raises(SafetensorsLoadError):
            ModelLoader(max_memory={"cpu": needed_bytes - 1}, dtype=torch.float64).load_checkpoint(saved)
        assert ModelLoader(max_memory={"cpu": 10}, device_map={"": "disk", "alpha": "cpu"}).load_checkpoint(saved)

    @pytest.mark.parametrize(("dtype", "element_bytes"), [(None, 4), (torch.float16, 2)])
    def test_max_memory_of_a_gguf_counts_it_dequantised(self, tmp_path, dtype: torch.dtype | None, element_bytes: int):
        path, needed_bytes = write_gguf(tmp_path), element_bytes * (6 * 64 + 64 + 64)
        assert ModelLoader(dtype=dtype, max_memory={"cpu": needed_bytes}).load_checkpoint(path)
        with pytest.raises(SafetensorsLoadError, match=f"needs {needed_bytes} bytes on cpu"):
            ModelLoader(dtype=dtype, max_memory={"cpu": needed_bytes - 1}).load_checkpoint(path)
        part = ModelLoader(dtype=dtype, max_memory={"cpu": 64 * element_bytes}, device_map={"block": "disk"})
        assert part.load_checkpoint(path).keys() == {"other.bias"}

    def test_max_memory_of_a_pickle(self, tmp_path, state_dict):
        torch.save(state_dict, tmp_path / "model.pt")
        floats = [tensor for tensor in state_dict.values() if tensor.is_floating_point()]
        rest = [tensor for tensor in state_dict.values() if not tensor.is_floating_point()]
        needed_bytes = sum(8 * tensor.numel() for tensor in floats) + sum(tensor.nbytes for tensor in rest)
        load = ModelLoader(max_memory={"cpu": needed_bytes}, dtype=torch.float64).load_checkpoint
        assert load(tmp_path / "model.pt")
        with pytest.raises(SafetensorsLoadError, match=f"needs {needed_bytes} bytes on cpu"):
            ModelLoader(max_memory={"cpu": needed_bytes - 1}, dtype=torch.float64).load_checkpoint(
                tmp_path / "model.pt"
            )

    def test_progress_names_the_tensors_of_every_format(self, tmp_path, state_dict, saved):
        torch.save(state_dict, tmp_path / "model.pt")
        for path in (write_gguf(tmp_path), tmp_path / "model.pt", saved):
            seen: list[LoadProgress] = []
            strategy = "lazy" if path == saved else "auto"
            loaded = ModelLoader(strategy, dtype=torch.float64).load_checkpoint(path, progress=seen.append)
            told = {progress.tensor for progress in seen} - {""}
            assert len(told) > 2
            assert told <= loaded.keys()

    def test_progress_of_a_gguf_and_of_a_pickle(self, tmp_path, state_dict):
        torch.save(state_dict, tmp_path / "model.pt")
        for path in (write_gguf(tmp_path), tmp_path / "model.pt"):
            seen: list[LoadProgress] = []
            ModelLoader(dtype=torch.float64, device_map={"block": "meta"}).load_checkpoint(path, progress=seen.append)
            assert len(seen) > 2, path
            assert 0 < seen[0].done_bytes < seen[0].total_bytes
            assert seen[-1].done_bytes == seen[-1].total_bytes

    @pytest.mark.parametrize("calls", [0, 1, 5])
    def test_cancelling_a_pickle(self, tmp_path, state_dict, calls: int):
        torch.save(state_dict, tmp_path / "model.pt")
        answers = iter([False] * calls)
        with pytest.raises(LoadCancelledError):
            loader = ModelLoader(dtype=torch.float64)
            loader.load_checkpoint(tmp_path / "model.pt", cancelled=lambda: next(answers, True))

    def test_a_pickle_that_is_cancelled_first_is_not_opened(self, tmp_path):
        with pytest.raises(LoadCancelledError):
            ModelLoader().load_checkpoint(tmp_path / "absent.pt", cancelled=lambda: True)

    def test_low_cpu_mem_usage_streams_what_is_cast(self, saved):
        result = ModelLoader(low_cpu_mem_usage=True, dtype=torch.float16).load_checkpoint(saved)
        assert result.metrics.strategy == "streaming"
        assert "low_memory" in result.reasons[0]

    def test_strategy_settings(self, sharded):
        assert ModelLoader("parallel", workers=1).load_shards(files(sharded))
        with pytest.raises(ValueError, match="strategy 'eager' has no max_bytes; it takes no settings"):
            ModelLoader("eager", max_bytes=1)
        with pytest.raises(ValueError, match="strategy 'parallel' has no speed; it takes max_bytes, workers"):
            ModelLoader("parallel", speed=1)
        with pytest.raises(ValueError, match="strategy 'auto' has no workers; it takes no settings"):
            ModelLoader("auto", workers=1)

    @pytest.mark.parametrize("limited", ["cuda", "cuda:0", 0])
    @pytest.mark.parametrize("device", ["cuda", "cuda:0", 0])
    def test_the_current_gpu_goes_by_both_of_its_names(self, saved, limited: str | int, device: str | int):
        loader = ModelLoader(max_memory={limited: 10}, device_map={"": device})
        with pytest.raises(SafetensorsLoadError, match="and may take 10;"):
            loader.load_checkpoint(saved)

    @pytest.mark.parametrize("dtype", ["float16", torch.int8, torch.bool])
    def test_a_dtype_that_nothing_is_cast_to(self, dtype: object):
        with pytest.raises(ValueError, match="no floating-point dtype"):
            ModelLoader(dtype=dtype)

    @pytest.mark.parametrize("choice", [{"device": "nope"}, {"device": "disk"}, {"device_map": {"a": "gpu"}}])
    def test_a_device_that_torch_does_not_know(self, choice: dict[str, Any]):
        with pytest.raises(ValueError, match="no device"):
            ModelLoader(**choice)

    def test_a_device_map_by_name_is_refused(self):
        with pytest.raises(ValueError, match="'balanced' is no device map"):
            ModelLoader(device_map="balanced")

    def test_without_files_there_is_nothing_to_load(self):
        with pytest.raises(ValueError, match="name the files"):
            ModelLoader().load_shards([])

    @pytest.mark.parametrize(
        "size", ["", "much", "5 parsecs", "-1GB", -1, -0.5, math.inf, math.nan, True, None, [], b"1GB"]
    )
    def test_what_is_no_size(self, size: Any):
        with pytest.raises(ValueError, match="is no number of bytes"):
            MaxMemory.of({0: size})

    @pytest.mark.parametrize("device", ["gpu0", "vram", "", "cuda:x", "cpu:x", True, None])
    def test_a_limit_for_a_device_that_torch_does_not_know(self, device: object):
        with pytest.raises(ValueError, match="is no device"):
            ModelLoader(max_memory={device: 1})

    @pytest.mark.parametrize("limited", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
    @pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu", 0)])
    def test_the_cpu_goes_by_all_of_its_names(self, saved, limited: object, device: Any):
        for choice in ({"device": device}, {"device_map": {"": device}}):
            with pytest.raises(SafetensorsLoadError, match="bytes on cpu and may take 10;"):
                ModelLoader(max_memory={limited: 10}, **choice).load_checkpoint(saved)
