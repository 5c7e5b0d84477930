from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import T5Config, T5EncoderModel

from warmstack.loaders import (
    LoadProgress,
    SafetensorsLoadError,
    SafetensorsValidationError,
    fill_module,
    load_module,
)
from warmstack.loaders.module_loading import parameters_on_meta


def tiny_unet() -> torch.nn.Module:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )


def tiny_flux() -> torch.nn.Module:
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )


UNET_INPUT = {
    "sample": torch.ones(1, 4, 8, 8),
    "timestep": torch.tensor([3]),
    "encoder_hidden_states": torch.ones(1, 5, 32),
}
FLUX_INPUT = {
    "hidden_states": torch.ones(1, 6, 4),
    "encoder_hidden_states": torch.ones(1, 5, 32),
    "pooled_projections": torch.ones(1, 32),
    "timestep": torch.tensor([0.5]),
    "img_ids": torch.zeros(6, 3),
    "txt_ids": torch.zeros(5, 3),
}


def test_progress_is_of_what_the_model_takes(tmp_path: Path):
    model = tiny_unet()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    save_file({"unknown": torch.ones(9)}, tmp_path / "more.safetensors")
    seen: list[LoadProgress] = []
    files = sorted(tmp_path.glob("*.safetensors"))
    fill_module(tiny_unet(), files, device_map={"conv_in": "disk"}, progress=seen.append)
    taken = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("conv_in.")}
    assert {progress.tensor for progress in seen} - {""} <= taken.keys()
    assert seen[-1].done_bytes == seen[-1].total_bytes == sum(tensor.nbytes for tensor in taken.values())
    bar: list[LoadProgress] = []
    (tmp_path / "more.safetensors").unlink()
    load_module(tiny_unet, tmp_path, progress=bar.append)
    assert bar[-1].done_bytes == bar[-1].total_bytes == sum(tensor.nbytes for tensor in model.state_dict().values())


def test_without_files_there_is_nothing_to_fill():
    with pytest.raises(ValueError, match="name the files"):
        fill_module(tiny_unet(), [])


@pytest.mark.parametrize(
    ("make", "inputs", "shards"),
    [(tiny_unet, UNET_INPUT, True), (tiny_unet, UNET_INPUT, False), (tiny_flux, FLUX_INPUT, True)],
)
def test_a_model_of_diffusers_computes_what_the_saved_one_does(tmp_path: Path, make, inputs, shards: bool):
    source = make().eval()
    source.save_pretrained(tmp_path, max_shard_size="100KB" if shards else "1GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == shards
    kind = type(source)
    target = load_module(lambda: kind.from_config(kind.load_config(tmp_path)), tmp_path)
    state = source.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in target.state_dict().items())
    with torch.no_grad():
        assert torch.equal(target(**inputs).sample, source(**inputs).sample)


class Tied(torch.nn.Module):
    """Two names for one weight, and a buffer that no file has."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.head = torch.nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("angles", torch.arange(3.0), persistent=False)


def test_tied_weights_stay_tied_and_computed_buffers_real(tmp_path: Path):
    weight = torch.rand(6, 4)
    save_file({"embed.weight": weight}, tmp_path / "model.safetensors")
    model = load_module(Tied, tmp_path)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, weight)
    assert torch.equal(model.angles, torch.arange(3.0))
    assert not model.training


@pytest.mark.parametrize("names", [["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]])
def test_weights_stay_tied_under_whichever_name_the_files_have_them(tmp_path: Path, names: list[str]):
    weight = torch.rand(6, 4)
    save_file({name: weight.clone() for name in names}, tmp_path / "model.safetensors")
    model = load_module(Tied, tmp_path)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, weight)


class Angles(torch.nn.Module):
    """A buffer that is saved as a rule, and one that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(2, 2)
        self.register_buffer("angles", torch.arange(3.0))
        self.register_buffer("steps", torch.arange(4), persistent=False)


def test_a_buffer_that_no_file_has_is_what_was_computed(tmp_path: Path):
    body = {f"body.{name}": tensor for name, tensor in torch.nn.Linear(2, 2).state_dict().items()}
    save_file(body, tmp_path / "model.safetensors")
    assert torch.equal(load_module(Angles, tmp_path).angles, torch.arange(3.0))
    moved = load_module(Angles, tmp_path, device="meta")
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"meta"}


def test_what_a_model_keeps_in_float32_is_not_cast(tmp_path: Path):
    """As diffusers does it, by the names on the path of a tensor: other pictures come of it otherwise."""
    source = tiny_unet()
    source.save_pretrained(tmp_path)

    class Careful(type(source)):
        _keep_in_fp32_modules: ClassVar = ["time_embedding", "conv_norm_out"]

    theirs = Careful.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).state_dict()
    ours = load_module(lambda: Careful.from_config(Careful.load_config(tmp_path)), tmp_path, dtype=torch.bfloat16)
    dtypes = {key: tensor.dtype for key, tensor in ours.state_dict().items()}
    assert dtypes == {key: tensor.dtype for key, tensor in theirs.items()}
    assert set(dtypes.values()) == {torch.float32, torch.bfloat16}
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("strict", [[], ["block.0.*layer_norm", "SelfAttention.q"]], ids=["plain", "strict"])
def test_what_a_text_encoder_keeps_in_float32(tmp_path: Path, strict: list[str], dtype: torch.dtype):
    """As transformers does it, by patterns, and the plain ones in float16 alone."""

    class Encoder(T5EncoderModel):
        _keep_in_fp32_modules_strict: ClassVar = strict

    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    Encoder(config).save_pretrained(tmp_path)
    theirs = Encoder.from_pretrained(tmp_path, dtype=dtype).state_dict()
    ours = load_module(lambda: Encoder(config), tmp_path, dtype=dtype).state_dict()
    assert {key: tensor.dtype for key, tensor in ours.items()} == {key: tensor.dtype for key, tensor in theirs.items()}
    kept = {key for key, tensor in ours.items() if tensor.dtype == torch.float32}
    assert any(".wo." in key for key in kept) == (dtype == torch.float16)
    assert any(".q." in key for key in kept) == (bool(strict) and dtype != torch.float64)
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_a_missing_parameter_is_named(tmp_path: Path):
    save_file({"bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(SafetensorsValidationError, match="in no file") as caught:
        load_module(lambda: torch.nn.Linear(3, 2), tmp_path)
    assert caught.value.key == "weight"


def test_other_formats_are_refused(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(SafetensorsLoadError, match="load it with ModelLoader"):
        load_module(lambda: torch.nn.Linear(3, 2), tmp_path)


def test_only_what_this_thread_builds_meanwhile_is_without_memory():
    built: list[torch.nn.Module] = []
    with parameters_on_meta():
        other = threading.Thread(target=lambda: built.append(torch.nn.Linear(2, 2)))
        other.start()
        other.join()
        ours = torch.nn.Linear(2, 2)
    assert ours.weight.is_meta and ours.bias.is_meta
    assert not built[0].weight.is_meta
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_a_load_does_not_break_the_thread_that_registers_a_parameter(tmp_path: Path):
    """Torch loops over its hooks for each: one that came or went meanwhile would end the loop with an error."""
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "model.safetensors")
    registering, loaded = threading.Event(), threading.Event()

    def wait_once(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        if not registering.is_set():
            registering.set()
            loaded.wait()

    load_module(lambda: torch.nn.Linear(2, 2), tmp_path)
    hooks = [register_module_parameter_registration_hook(wait_once) for _ in range(2)]
    try:
        with ThreadPoolExecutor(1) as pool:
            building = pool.submit(torch.nn.Linear, 2, 2)
            try:
                registering.wait()
                load_module(lambda: torch.nn.Linear(2, 2), tmp_path)
            finally:
                loaded.set()
            assert not building.result().weight.is_meta
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def elsewhere_empty_weights() -> Iterator[None]:
    """Another thread is inside of what `from_pretrained` of diffusers builds its models in."""
    inside, leave = threading.Event(), threading.Event()

    def build() -> None:
        with init_empty_weights():
            inside.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        try:
            inside.wait()
            yield
        finally:
            leave.set()
        building.result()


def test_another_thread_that_builds_an_empty_model_empties_none_of_ours(tmp_path: Path):
    source = tiny_unet()
    source.save_pretrained(tmp_path)
    with elsewhere_empty_weights():
        target = load_module(tiny_unet, tmp_path).state_dict()
    state = source.state_dict()
    assert target.keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in target.items())


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_another_thread_that_builds_an_empty_model_does_not_untie_ours(tmp_path: Path, name: str):
    """Whatever is registered meanwhile becomes another parameter."""
    weight = torch.rand(6, 4)
    save_file({name: weight}, tmp_path / "model.safetensors")
    with elsewhere_empty_weights():
        model = load_module(Tied, tmp_path)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, weight)


def test_a_module_that_keeps_its_weights_in_a_list_too_has_them_there(tmp_path: Path):
    source = torch.nn.LSTM(2, 3).eval()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    with elsewhere_empty_weights():
        target = load_module(lambda: torch.nn.LSTM(2, 3), tmp_path)
    with torch.no_grad():
        assert torch.equal(target(torch.ones(4, 2))[0], source(torch.ones(4, 2))[0])


def test_a_module_that_is_loaded_while_another_is_built_has_its_weights(tmp_path: Path):
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "model.safetensors")
    with parameters_on_meta():
        inner = load_module(lambda: torch.nn.Linear(2, 2), tmp_path)
        outer = torch.nn.Linear(2, 2)
    assert inner.weight.sum() == 4
    assert outer.weight.is_meta
