from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

from warmstack.loaders import (
    LoadCancelledError,
    LoadProgress,
    ModelLoader,
    SafetensorsLoadError,
    SafetensorsValidationError,
    StrategyRegistry,
    load_module,
)

from ..test_module_loading import tiny_unet

NAMES = tuple(f"pytorch_model-{number:05}-of-00002.bin" for number in (1, 2))
WHOLE = dict.fromkeys(("unet.a", "unet.b"), NAMES[0]) | {"vae.c": NAMES[1]}


def write_index(folder: Path, weight_map: dict[str, str]) -> Path:
    path = folder / "pytorch_model.bin.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return {key: torch.randn(8, 3) for key in WHOLE}


@pytest.fixture
def folder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    for name in NAMES:
        torch.save({key: tensors[key] for key, shard in WHOLE.items() if shard == name}, tmp_path / name)
    write_index(tmp_path, WHOLE)
    return tmp_path


@pytest.mark.parametrize("strategy", ["auto", *StrategyRegistry.default().strategies])
def test_an_index_its_folder_and_its_files(folder: Path, tensors, same_tensors, strategy: str):
    loader, index = ModelLoader(strategy), folder / "pytorch_model.bin.index.json"
    for result in (loader.load_checkpoint(folder), loader.load_checkpoint(index), loader.load_shards((), index)):
        same_tensors(result.tensors, tensors)
        assert (result.metrics.strategy, result.metrics.files) == ("pickled", 2)
        assert result.reasons == (f".bin has one way; {strategy!r} reads safetensors",) * (strategy != "auto")
    same_tensors(loader.load_shards([folder / name for name in NAMES]).tensors, tensors)


async def test_awaited(folder: Path, tensors, same_tensors):
    same_tensors((await ModelLoader().load_shards_async([folder / name for name in NAMES])).tensors, tensors)


def test_a_part_cast_and_limited(folder: Path, tensors, same_tensors):
    seen: list[LoadProgress] = []
    loader = ModelLoader(dtype=torch.float16, device_map={"unet": "disk"}, max_memory={"cpu": 48})
    same_tensors(loader.load_checkpoint(folder, progress=seen.append).tensors, {"vae.c": tensors["vae.c"].half()})
    assert seen[-1][:2] == (96, 96)
    assert {progress.tensor for progress in seen} - {""} == {"vae.c"}
    with pytest.raises(SafetensorsLoadError, match="needs 288 bytes on cpu and may take 287"):
        ModelLoader(max_memory={"cpu": 287}).load_checkpoint(folder)
    with pytest.raises(SafetensorsLoadError, match="has no header"):
        ModelLoader(device_map="auto", max_memory={"cpu": "1GB"}).load_checkpoint(folder)


@pytest.mark.parametrize(
    ("weight_map", "reason", "key"),
    [
        ({**WHOLE, "vae.c": "pytorch_model-3.bin"}, r"pytorch_model-3\.bin, which is missing", "vae.c"),
        ({**WHOLE, "vae.d": NAMES[1]}, "is in no shard", "vae.d"),
        ({**WHOLE, "unet.b": NAMES[1]}, "00001-of-00002.bin and not in .*00002-of-00002.bin", "unet.b"),
        ({"unet.a": NAMES[0], "vae.c": NAMES[1]}, "not in the index", "unet.b"),
        ({**WHOLE, "vae.c": "../x.bin"}, "outside the folder", "vae.c"),
        ({**WHOLE, "vae.c": "more/other.safetensors"}, "convert it to safetensors", "unet.a"),
    ],
    ids=["missing shard", "key in no shard", "wrong shard", "key not listed", "outside", "mixed"],
)
def test_an_index_that_lies(folder: Path, weight_map: dict[str, str], reason: str, key: str):
    (folder / "more").mkdir()
    save_file({"vae.c": torch.ones(1)}, folder / "more" / "other.safetensors")
    seen: list[LoadProgress] = []
    index = write_index(folder, weight_map)
    for load in (
        lambda: ModelLoader(dtype=torch.float16).load_checkpoint(folder, progress=seen.append),
        lambda: load_module(model, index, dtype=torch.float16, progress=seen.append),
    ):
        with pytest.raises(SafetensorsValidationError, match=reason) as caught:
            load()
        assert (caught.value.key, caught.value.path, seen) == (key, str(index), [])


def test_a_key_in_two_shards(folder: Path):
    torch.save({"vae.c": torch.ones(1), "unet.b": torch.ones(1)}, folder / NAMES[1])
    with pytest.raises(SafetensorsValidationError, match=r"'unet\.b': stands in .*00001-of-00002\.bin too"):
        ModelLoader().load_checkpoint(folder)


def test_a_folder_of_parts_without_an_index(folder: Path):
    os.unlink(folder / "pytorch_model.bin.index.json")
    with pytest.raises(SafetensorsLoadError, match="name one of them, or give load_shards all parts"):
        ModelLoader().load_checkpoint(folder)


def test_a_shard_that_is_rewritten_while_it_is_cast_is_refused(folder: Path):
    def rewrite(progress: LoadProgress) -> None:
        os.utime(folder / NAMES[1], ns=(1, os.stat(folder / NAMES[1]).st_mtime_ns + 1))

    for load in (
        lambda: ModelLoader(dtype=torch.float16).load_checkpoint(folder, progress=rewrite),
        lambda: load_module(model, folder, dtype=torch.float16, progress=rewrite),
    ):
        with pytest.raises(SafetensorsLoadError, match="changed while"):
            load()


def model() -> torch.nn.Module:
    parts = {"unet": ("a", "b"), "vae": ("c",)}
    return torch.nn.ModuleDict(
        {part: torch.nn.ParameterDict({name: torch.empty(8, 3) for name in names}) for part, names in parts.items()}
    )


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_cancelling(folder: Path, calls: int):
    for load in (ModelLoader(dtype=torch.float16).load_checkpoint, lambda *a, **k: load_module(model, *a, **k)):
        answers = iter([False] * calls)
        with pytest.raises(LoadCancelledError):
            load(folder, cancelled=lambda answers=answers: next(answers, True))


class TestModule:
    @pytest.mark.parametrize("size", ["100KB", "1GB"], ids=["shards", "one file"])
    @pytest.mark.parametrize("dtype", [None, torch.bfloat16])
    def test_of_diffusers(self, tmp_path: Path, dtype: torch.dtype | None, size: str):
        tiny_unet().save_pretrained(tmp_path, max_shard_size=size, safe_serialization=False)
        assert bool(list(tmp_path.glob("*.index.json"))) == (size == "100KB")
        seen: list[LoadProgress] = []
        ours = load_module(tiny_unet, tmp_path, dtype=dtype, progress=seen.append)
        theirs = UNet2DConditionModel.from_pretrained(tmp_path, torch_dtype=dtype, use_safetensors=False)
        assert_same(ours, theirs)
        assert seen[-1].done_bytes == seen[-1].total_bytes > 0

    def test_of_transformers_with_tied_weights_and_some_in_float32(self, tmp_path: Path):
        sizes = {"vocab_size": 16, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
        config = T5Config(**sizes, decoder_start_token_id=0)
        state = T5ForConditionalGeneration(config).state_dict()
        half = len(state) // 2
        parts = dict(list(state.items())[:half]), dict(list(state.items())[half:])
        for name, part in zip(NAMES, parts, strict=True):
            torch.save(part, tmp_path / name)
        write_index(tmp_path, {key: name for name, part in zip(NAMES, parts, strict=True) for key in part})
        config.save_pretrained(tmp_path)
        ours = load_module(lambda: T5ForConditionalGeneration(config), tmp_path, dtype=torch.float16)
        theirs = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16, use_safetensors=False)
        assert_same(ours, theirs)
        assert ours.shared.weight is ours.encoder.embed_tokens.weight

    def test_of_older_names(self, tmp_path: Path):
        source = tiny_unet()
        torch.save({f"base.{key}": tensor for key, tensor in source.state_dict().items()}, tmp_path / "model.bin")

        class Prefixed(UNet2DConditionModel):
            base_model_prefix = "base"
            _fix_state_dict_keys_on_load = None

        loaded = load_module(lambda: Prefixed.from_config(source.config), tmp_path)
        assert_same(loaded, source)


def assert_same(ours: Any, theirs: Any) -> None:
    expected = theirs.state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key
