"""A device that is not there is told before a byte of any weight is read: a checkpoint takes a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import ModelLoader, SafetensorsLoadError, StrategyRegistry, fill_module
from warmstack.loaders.progress import LoadProgress
from warmstack.loaders.reading.filling import Pace
from warmstack.loaders.strategies.strategy import LoadRequest

ABSENT = "cuda:77"


def refused() -> Any:
    return pytest.raises(SafetensorsLoadError, match=f"cannot go to {ABSENT}")


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for path in paths:
        save_file({f"{path.stem}.weight": torch.ones(5, 5)}, path)
    return paths


@pytest.mark.parametrize("strategy", StrategyRegistry.default().strategies)
def test_by_every_strategy(strategy: str, shards: list[Path]):
    asked: list[str] = []

    def cancelled() -> bool:
        asked.append("before a chunk")
        return False

    chosen = StrategyRegistry.default().strategies[strategy]
    paths = tuple(map(str, shards[: chosen.constraints.max_files]))
    with refused() as caught:
        chosen.load(LoadRequest(paths, device=ABSENT, pace=Pace(cancelled)))
    assert asked == []
    assert "one.weight" in str(caught.value)


@pytest.mark.parametrize("strategy", ["auto", "eager", "parallel"])
def test_of_a_later_shard_alone(strategy: str, shards: list[Path]):
    seen: list[LoadProgress] = []
    loader = ModelLoader(strategy, device_map={"two": ABSENT})
    with refused() as caught:
        loader.load_shards(shards, progress=seen.append)
    assert seen == []
    assert caught.value.path == str(shards[1])


def test_of_a_gguf(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "flux")
    writer.add_tensor("block.weight", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    seen: list[LoadProgress] = []
    with refused():
        ModelLoader(device=ABSENT).load_checkpoint(tmp_path / "model.gguf", progress=seen.append)
    assert seen == []


def test_of_a_module_that_is_filled(shards: list[Path]):
    seen: list[LoadProgress] = []
    with torch.device("meta"):
        module = torch.nn.ModuleDict({name: torch.nn.Linear(5, 5, bias=False) for name in ("one", "two")})
    with refused():
        fill_module(module, shards, device_map={"two": ABSENT}, progress=seen.append)
    assert seen == []
    assert all(parameter.is_meta for parameter in module.parameters())


def test_a_device_that_no_tensor_goes_to_need_not_be_there(shards: list[Path]):
    loader = ModelLoader(device=ABSENT, device_map={"one": "cpu", "two": "cpu", "three": ABSENT})
    assert loader.load_shards(shards).tensors.keys() == {"one.weight", "two.weight"}
