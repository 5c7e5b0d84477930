"""Pipelines that share models: what was applied last holds for both, and the models' own weights are never lost."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from safetensors.torch import save_file

from warmstack.worker.lora_worker import LoRAWorker

from .conftest import changed, weights_of
from .other_pipelines import FEATURES, FluxLike, delta, kohya_pair

MakeWorker = Callable[..., LoRAWorker]
TRANSFORMER = "single_transformer_blocks.0.proj_out"
CLIP = "text_model.encoder.layers.0.mlp.fc1"
LAYER_BYTES = FEATURES * FEATURES * 4


def test_a_pipeline_made_from_another_starts_from_the_models_own_weights(
    pipeline: Any, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    base = weights_of(pipeline)
    worker.apply_to_pipeline(pipeline, "wash")
    expected = weights_of(pipeline)
    worker.forget(pipeline)
    img2img = StableDiffusionXLImg2ImgPipeline.from_pipe(pipeline)
    worker.apply_to_pipeline(pipeline, "ink")
    worker.apply_to_pipeline(img2img, "wash")
    assert changed(expected, weights_of(pipeline)) == set()
    worker.remove_from_pipeline(img2img)
    worker.remove_from_pipeline(pipeline)
    assert changed(base, weights_of(pipeline)) == set()


class Pair:
    """Two pipelines with one transformer, and a text encoder each."""

    def __init__(self) -> None:
        self.one = self.pipeline()
        self.other = self.pipeline()
        self.other.transformer = self.one.transformer
        self.base = self.weights()

    @staticmethod
    def pipeline() -> Any:
        return FluxLike(transformer=[TRANSFORMER], text_encoder=[CLIP])

    def weights(self) -> list[torch.Tensor]:
        models = (self.one.transformer, self.one.text_encoder, self.other.text_encoder)
        return [weight.detach().clone() for model in models for weight in model.parameters()]

    def same_as_base(self) -> list[bool]:
        """Of the transformer, and of either text encoder."""
        return [torch.equal(now, then) for now, then in zip(self.weights(), self.base, strict=True)]


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def worker(tmp_path: Path, make_worker: MakeWorker) -> LoRAWorker:
    """`both` is for transformer and text encoder, `model` for the transformer alone."""
    model = kohya_pair("lora_unet_single_blocks_0_linear2", 1)
    text = kohya_pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", 2)
    save_file({**model, **text}, tmp_path / "both.safetensors")
    save_file({key: value + 1 for key, value in model.items()}, tmp_path / "model.safetensors")
    return make_worker(lora_directories=tmp_path)


def test_the_last_stack_wins_where_models_are_shared_and_only_there(pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "both")
    worker.apply_to_pipeline(pair.other, [])
    assert pair.same_as_base() == [True, False, True]
    worker.apply_to_pipeline(pair.one, [])
    assert pair.same_as_base() == [True, True, True]


@pytest.mark.parametrize("take_off", ["remove_from_pipeline", "forget"])
def test_either_pipeline_gives_the_shared_models_their_own_weights_back(
    take_off: str, pair: Pair, worker: LoRAWorker
) -> None:
    worker.apply_to_pipeline(pair.one, "model")
    worker.apply_to_pipeline(pair.one, "both")
    getattr(worker, take_off)(pair.other)
    assert pair.same_as_base() == [True, False, True]
    worker.apply_to_pipeline(pair.other, "model")
    getattr(worker, take_off)(pair.one)
    assert pair.same_as_base() == [True, True, True]


def test_a_copy_is_counted_once_and_lives_as_long_as_its_module(pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "both")
    worker.apply_to_pipeline(pair.other, "both")
    assert worker.status().base_copy_bytes == 3 * LAYER_BYTES
    del pair.one
    gc.collect()
    assert worker.status().base_copy_bytes == 2 * LAYER_BYTES
    worker.forget(pair.other)
    assert worker.status().base_copy_bytes == 0
    assert torch.equal(pair.other.transformer.get_submodule(TRANSFORMER).weight, pair.base[0])


def test_a_model_that_outlives_its_pipeline_is_not_taken_for_its_own_original(pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "both")
    pair.one = pair.pipeline()
    gc.collect()
    worker.apply_to_pipeline(pair.other, "model")
    worker.remove_from_pipeline(pair.other)
    assert torch.equal(pair.other.transformer.get_submodule(TRANSFORMER).weight, pair.base[0])


def test_a_component_put_in_later_is_the_one_that_is_updated(pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "both")
    worker.remove_from_pipeline(pair.one)
    replaced, pair.one.transformer = pair.one.transformer, pair.pipeline().transformer
    before = pair.one.transformer.get_submodule(TRANSFORMER).weight.detach().clone()
    worker.apply_to_pipeline(pair.one, "model")
    assert not torch.equal(pair.one.transformer.get_submodule(TRANSFORMER).weight, before)
    assert torch.equal(replaced.get_submodule(TRANSFORMER).weight, pair.base[0])
    worker.remove_from_pipeline(pair.one)
    assert torch.equal(pair.one.transformer.get_submodule(TRANSFORMER).weight, before)


@pytest.mark.parametrize("path", ["single_transformer_blocks.0.proj_out", "single_transformer_blocks.0"])
def test_a_module_that_was_replaced_inside_a_model_is_seen(path: str, pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "model")
    worker.remove_from_pipeline(pair.one)
    parent, _, name = path.rpartition(".")
    fresh = pair.pipeline().transformer.get_submodule(path)
    setattr(pair.one.transformer.get_submodule(parent), name, fresh)
    before = pair.one.transformer.get_submodule(TRANSFORMER).weight.detach().clone()
    assert worker.apply_to_pipeline(pair.one, "model").weights_updated == 1
    assert not torch.equal(pair.one.transformer.get_submodule(TRANSFORMER).weight, before)
    worker.remove_from_pipeline(pair.one)
    assert torch.equal(pair.one.transformer.get_submodule(TRANSFORMER).weight, before)


def test_a_model_that_the_pipeline_lets_go_of_is_freed(pair: Pair, worker: LoRAWorker) -> None:
    """Dropping a text encoder once the prompts are encoded is how people make room."""
    worker.apply_to_pipeline(pair.one, "both")
    encoder = weakref.ref(pair.one.text_encoder)
    pair.one.text_encoder = None
    gc.collect()
    assert encoder() is None
    assert worker.status().base_copy_bytes == LAYER_BYTES


def test_a_compiled_model_has_the_names_of_the_model_itself(pair: Pair, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pair.one, "model")
    expected = pair.weights()
    worker.forget(pair.one)
    pair.one.transformer = torch.compile(pair.one.transformer, backend="eager")
    assert worker.apply_to_pipeline(pair.one, "model").weights_updated == 1
    pair.one.transformer = pair.other.transformer
    assert all(map(torch.equal, pair.weights(), expected))
    worker.remove_from_pipeline(pair.one)
    assert pair.same_as_base() == [True, True, True]


def test_an_autocast_around_it_goes_on_with_the_weights_of_the_moment(pair: Pair, worker: LoRAWorker) -> None:
    """It keeps copies of float32 weights until its end, however these change."""
    layer = pair.one.transformer.get_submodule(TRANSFORMER)
    seen = []
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for stack in ([], "model", []):
            worker.apply_to_pipeline(pair.one, stack)
            seen.append(layer(torch.ones(1, FEATURES)))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        worker.apply_to_pipeline(pair.one, "model")
        expected = layer(torch.ones(1, FEATURES))
    assert torch.equal(seen[1], expected)
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_others_write_while_no_stack_is_on_is_the_models_own_from_then_on(
    dtype: torch.dtype, pair: Pair, worker: LoRAWorker
) -> None:
    """As `fuse_lora`, `load_state_dict` and `to` do."""
    worker.apply_to_pipeline(pair.one, "both")
    worker.remove_from_pipeline(pair.one)
    for model in (pair.one.transformer, pair.one.text_encoder):
        model.to(dtype)
        model.load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    pair.base = pair.weights()
    worker.apply_to_pipeline(pair.other, "model")
    worker.apply_to_pipeline(pair.one, "both")
    assert pair.same_as_base() == [False, False, True]
    assert worker.status().base_copy_bytes == 2 * FEATURES * FEATURES * dtype.itemsize
    worker.remove_from_pipeline(pair.one)
    assert pair.same_as_base() == [True, True, True]


def test_a_weight_that_two_modules_share_takes_what_is_for_both_and_comes_back(
    tmp_path: Path, make_worker: MakeWorker
) -> None:
    """As `tie_weights` leaves them."""
    names = {"lora_unet_single_blocks_0_linear2": 1, "lora_unet_single_blocks_1_linear2": 2}
    tensors = {name: kohya_pair(name, seed) for name, seed in names.items()}
    save_file({key: value for pair in tensors.values() for key, value in pair.items()}, tmp_path / "it.safetensors")
    pipeline: Any = FluxLike(transformer=[TRANSFORMER, TRANSFORMER.replace("0", "1")])
    first, second = (module for module in pipeline.transformer.modules() if isinstance(module, torch.nn.Linear))
    second.weight = first.weight
    base = first.weight.detach().clone()
    worker = make_worker(lora_directories=tmp_path)
    worker.apply_to_pipeline(pipeline, "it")
    expected = sum(delta(pair, name) for name, pair in tensors.items())
    torch.testing.assert_close(first.weight - base, expected, rtol=1e-5, atol=1e-5)
    assert worker.status().base_copy_bytes == LAYER_BYTES
    worker.remove_from_pipeline(pipeline)
    assert second.weight is first.weight
    assert torch.equal(first.weight, base)
