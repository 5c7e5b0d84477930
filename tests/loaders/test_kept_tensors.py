"""A tensor that is neither cast nor moved, and the buffer that it came in with the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from warmstack.loaders import (
    LoadRequest,
    ModelLoader,
    SafetensorsLoadError,
    SpareMemory,
    StrategyRegistry,
    fill_module,
    load_safetensors_robust,
)
from warmstack.loaders.placing.footprint import footprint
from warmstack.loaders.robust import load_request

PRIVATE = [name for name in StrategyRegistry.default().strategies if name != "lazy"]


def held_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """Of all the memory that `tensors` keep alive."""
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def handed_out_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Two files of 6 MiB: float32, and one row of positions in each."""
    found = []
    for name in "ab":
        tensors = {f"{name}.{number}.weight": torch.full((1 << 19,), float(number)) for number in range(3)}
        tensors[f"{name}.position_ids"] = torch.arange(77)
        found.append(str(tmp_path / f"{name}.safetensors"))
        save_file(tensors, found[-1])
    return found


@pytest.mark.parametrize("name", [*PRIVATE, "auto"])
@pytest.mark.parametrize("choice", [{"dtype": torch.float16}, {"device_map": {"": "meta", "a.position_ids": "cpu"}}])
def test_one_that_stays_does_not_keep_the_whole_file(paths: list[str], same_tensors, name: str, choice):
    files = paths if name == "parallel" else paths[:1]
    loaded = ModelLoader(name, **choice).load_shards(files)
    here = {key: tensor for key, tensor in loaded.items() if tensor.is_cpu}
    assert "a.position_ids" in here
    assert held_bytes(here) == handed_out_bytes(here)
    stored = {key: tensor for path in files for key, tensor in load_file(path).items() if key in here}
    same_tensors(here, {key: tensor.to(here[key].dtype) for key, tensor in stored.items()})


@pytest.mark.parametrize("name", ["eager", "fast_single_file", "parallel_async_lazy"])
def test_the_memory_of_the_others_goes_to_the_next_load(paths: list[str], name: str):
    spare = SpareMemory(64 << 20)
    loaded = ModelLoader(name, dtype=torch.float16, spare=spare).load_shards(paths[:1])
    assert loaded
    assert spare.held_bytes >= 6 << 20


@pytest.mark.parametrize("name", ["eager", "parallel_async_lazy"])
def test_a_file_that_was_cast_goes_before_the_next_one_is_read(paths: list[str], name: str):
    spare = SpareMemory(64 << 20)
    assert ModelLoader(name, dtype=torch.float16, spare=spare).load_shards(paths)
    assert 6 << 20 <= spare.held_bytes <= 8 << 20


@pytest.mark.parametrize("name", PRIVATE)
def test_most_of_a_large_file_is_not_copied_for_the_sake_of_a_little(tmp_path: Path, name: str):
    tensors = {f"{number}.weight": torch.zeros(3 << 20, dtype=torch.float16) for number in range(2)}
    tensors["scale"] = torch.ones(1 << 20)
    save_file(tensors, tmp_path / "model.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    names = ["model", "other"] if name == "parallel" else ["model"]
    loaded = ModelLoader(name, dtype=torch.float16).load_shards([tmp_path / f"{file}.safetensors" for file in names])
    assert loaded.metrics.peak_bytes <= (16 + 2 + 1) << 20
    limit = {"max_memory": {"cpu": handed_out_bytes(loaded.tensors) + 1000}}
    load = ModelLoader(name, dtype=torch.float16, **limit).load_shards
    if name == "streaming":
        assert held_bytes(load([tmp_path / "model.safetensors"]).tensors) == (12 + 2) << 20
        return
    with pytest.raises(SafetensorsLoadError, match=r"needs \d+ bytes on cpu .*'streaming'"):
        load([tmp_path / f"{file}.safetensors" for file in names])


def test_what_fits_piece_by_piece_fits(tmp_path: Path):
    tensors = {"body": torch.zeros(6 << 20, dtype=torch.float16), "scale": torch.ones(1 << 20)}
    save_file(tensors, tmp_path / "model.safetensors")
    limited = ModelLoader(dtype=torch.float16, max_memory={"cpu": 14 << 20})
    loaded = limited.load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.metrics.strategy == "streaming"
    assert held_bytes(loaded.tensors) == 14 << 20


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_without_a_copy_all_of_them_share_one_buffer(paths: list[str], dtype: torch.dtype | None):
    loaded = load_safetensors_robust(paths[0], strategy="eager", dtype=dtype)
    assert len({tensor.untyped_storage().nbytes() for tensor in loaded.values()}) == 1
    assert next(iter(loaded.values())).untyped_storage().nbytes() == handed_out_bytes(loaded)


@pytest.mark.parametrize("name", PRIVATE)
def test_the_footprint_is_what_there_is_at_the_worst_moment(paths: list[str], name: str):
    request = LoadRequest(tuple(paths if name == "parallel" else paths[:1]), dtype=torch.float16)
    assert load_request(request, name).metrics.peak_bytes <= footprint(request).host_bytes


def test_a_filled_model_keeps_no_more_than_its_tensors(tmp_path: Path):
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(64, 64)
            self.norm = torch.nn.LayerNorm(64)
            self.register_buffer("position_ids", torch.arange(77))

    save_file(Mixed().state_dict(), tmp_path / "model.safetensors")
    model = Mixed()
    fill_module(model, [tmp_path / "model.safetensors"], dtype=torch.float16, float32=["norm"])
    state = model.state_dict()
    assert model.norm.weight.dtype == torch.float32
    assert held_bytes(state) == handed_out_bytes(state)


def test_what_a_model_already_is_is_not_copied(tmp_path: Path):
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.rand(4).bfloat16())
            self.blocks = torch.nn.ParameterList(torch.rand(3 << 20).bfloat16() for _ in range(2))
            self.small = torch.nn.ParameterList(torch.rand(9).bfloat16() for _ in range(2))

    save_file(Model().state_dict(), tmp_path / "model.safetensors")
    model = Model()
    fill_module(model, [tmp_path / "model.safetensors"], dtype=torch.bfloat16)
    storages = [tensor.untyped_storage() for tensor in model.parameters()]
    # Read as they lie in the file, neighbours together: a copy would have storage of exactly its own size.
    assert storages[3].data_ptr() == storages[4].data_ptr()
    assert all(storage.nbytes() > tensor.nbytes for storage, tensor in zip(storages[1:3], model.blocks, strict=True))
