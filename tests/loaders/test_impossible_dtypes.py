"""Dtypes that a device lacks, and that torch casts to nothing: one line with the cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from warmstack.loaders import (
    LoadProgress,
    ModelLoader,
    SafetensorsLoadError,
    StrategyRegistry,
    fill_module,
)
from warmstack.loaders.gguf.load import load_gguf
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

from .gguf.gguf_files import RawTensor, gguf_bytes

STRATEGIES = [name for name in StrategyRegistry.default().strategies if name != "parallel"]


class MetaWithoutDoubles(TorchDispatchMode):
    """`meta` as a device that has no float64, in the way of MPS."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_meta and made.dtype == torch.float64:
            raise TypeError("Trying to convert Double to the META backend but it does not have support for that dtype.")
        return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_dtype_that_the_device_lacks(tmp_path: Path, strategy: str):
    save_file({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.float64)}, tmp_path / "a.safetensors")
    with MetaWithoutDoubles():
        with pytest.raises(SafetensorsLoadError, match=r"'b' cannot go to meta as torch\.float64: .*name a dtype"):
            ModelLoader(strategy, device="meta").load_checkpoint(tmp_path / "a.safetensors")
        loaded = ModelLoader(strategy, device="meta", dtype=torch.float16).load_checkpoint(tmp_path / "a.safetensors")
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float16}


def test_doubles_of_a_gguf_are_cast_before_they_go_to_a_device(tmp_path: Path):
    raw = RawTensor("a", (4,), GGUF_TYPES["F64"].code, 0)
    (tmp_path / "a.gguf").write_bytes(gguf_bytes([raw], data=bytes(32)))
    with MetaWithoutDoubles():
        tensor = load_gguf(tmp_path / "a.gguf", torch.float16, "meta").tensors["a"]
    assert (tensor.dtype, tensor.device.type, tuple(tensor.shape)) == (torch.float16, "meta", (4,))


@pytest.fixture
def half_bytes(write_raw) -> str:
    entry = {"dtype": "F4", "shape": [4, 4], "data_offsets": [0, 8]}
    return write_raw({"packed": entry, "plain": {"dtype": "F16", "shape": [4], "data_offsets": [8, 16]}}, bytes(16))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_torch_casts_to_nothing_is_refused_before_anything_is_read(half_bytes: str, strategy: str):
    seen: list[LoadProgress] = []
    with pytest.raises(SafetensorsLoadError, match=r"'packed' is F4, .*load it without dtype") as caught:
        ModelLoader(strategy, dtype=torch.float16).load_checkpoint(half_bytes, progress=seen.append)
    assert (seen, caught.value.path) == ([], half_bytes)
    assert ModelLoader(strategy).load_checkpoint(half_bytes).keys() == {"packed", "plain"}


LACKING = {
    "a type": ({"dtype": "F6_E2M3", "shape": [4], "data_offsets": [8, 11]}, "is F6_E2M3, which this torch lacks"),
    "a shape": ({"dtype": "F4", "shape": [2, 3], "data_offsets": [8, 11]}, "odd last dimension"),
}


@pytest.mark.parametrize("strategy", [*STRATEGIES, "auto"])
@pytest.mark.parametrize(("entry", "reason"), LACKING.values(), ids=LACKING)
def test_what_torch_cannot_hold_is_refused_before_anything_is_read(
    write_raw, strategy: str, entry: object, reason: str
):
    path = write_raw({"plain": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}, "odd": entry}, bytes(11))
    seen: list[LoadProgress] = []
    with pytest.raises(SafetensorsLoadError, match=f"'odd' .*{reason}"):
        ModelLoader(strategy).load_checkpoint(path, progress=seen.append)
    assert seen == []


def test_what_is_left_on_disk_may_be_anything(write_raw):
    entry, _ = LACKING["a type"]
    path = write_raw({"plain": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}, "odd": entry}, bytes(11))
    assert ModelLoader(device_map={"odd": "disk"}).load_checkpoint(path).keys() == {"plain"}


def test_what_is_left_on_disk_need_not_be_cast(half_bytes: str):
    loader = ModelLoader(dtype=torch.float32, device_map={"packed": "disk"})
    assert loader.load_checkpoint(half_bytes).keys() == {"plain"}


def test_a_module_gets_nothing_that_torch_casts_to_nothing(half_bytes: str):
    module = torch.nn.ParameterDict({"packed": torch.empty(4, 4, device="meta")})
    with pytest.raises(SafetensorsLoadError, match="'packed' is F4"):
        fill_module(module, [half_bytes], dtype=torch.float16)
