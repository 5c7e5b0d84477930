"""Weights that are packed: no LoRA can be added to them, and none is for another model because of that."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.worker import QuantisedError
from warmstack.worker.errors import StackError
from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import FluxLike, kohya_pair

PATH = "single_transformer_blocks.0.proj_out"
CLIP = "text_model.encoder.layers.0.mlp.fc1"
REFUSAL = r"'{}\.safetensors'.*transformer is quantised.*pipeline\.load_lora_weights"


class Params4bit(torch.nn.Parameter):
    """As bitsandbytes' own: the packed bytes may be stored as a floating dtype."""


def packed(dtype: torch.dtype, kind: type[torch.nn.Parameter] = torch.nn.Parameter) -> torch.nn.Parameter:
    return kind(torch.zeros(32, 1, dtype=dtype), requires_grad=False)


PACKED = {
    "uint8": lambda: packed(torch.uint8),
    "int8": lambda: torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.int8), requires_grad=False),
    "float8": lambda: torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float8_e4m3fn), requires_grad=False),
    "packed as bfloat16": lambda: packed(torch.bfloat16, Params4bit),
}


@pytest.fixture
def worker(tmp_path: Path, make_worker: Callable[..., LoRAWorker]) -> LoRAWorker:
    """`model` is for the transformer, `text` for the text encoder, `both` for both."""
    model = kohya_pair("lora_unet_single_blocks_0_linear2", 1)
    text = kohya_pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", 2)
    for name, tensors in {"model": model, "text": text, "both": {**model, **text}}.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    return make_worker(lora_directories=tmp_path)


class QuantLinear(torch.nn.Module):
    """As GPTQ's and AWQ's: what is packed has another name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(1, 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(1, 8, dtype=torch.float16))


@pytest.fixture(params=[*PACKED.values(), QuantLinear], ids=[*PACKED, "gptq"])
def quantised(request: pytest.FixtureRequest) -> Any:
    pipeline = FluxLike(transformer=[PATH, "proj_out"], text_encoder=[CLIP])
    made = request.param()
    if isinstance(made, torch.nn.Module):
        pipeline.transformer.set_submodule(PATH, made)  # type: ignore[attr-defined]
    else:
        pipeline.transformer.get_submodule(PATH).weight = made  # type: ignore[attr-defined]
    return pipeline


@pytest.mark.parametrize("name", ["model", "both"])
def test_a_lora_for_quantised_weights_is_refused_with_the_cure(name: str, quantised: Any, worker: LoRAWorker) -> None:
    with pytest.raises(StackError, match=REFUSAL.format(name)) as caught:
        worker.apply_to_pipeline(quantised, name)
    assert "another model" not in str(caught.value)


def test_what_was_found_for_a_pipeline_without_the_model_is_not_taken_for_this_one(
    quantised: Any, worker: LoRAWorker
) -> None:
    text_alone: Any = FluxLike(text_encoder=[CLIP])
    assert worker.apply_to_pipeline(text_alone, "both").weights_updated == 1
    quantised.transformer.proj_out = None
    with pytest.raises(StackError, match=REFUSAL.format("both")):
        worker.apply_to_pipeline(quantised, "both")


def test_a_quantised_model_is_in_nobodys_way(quantised: Any, worker: LoRAWorker) -> None:
    (lora,) = worker.apply_to_pipeline(quantised, "text").loras
    assert (lora.matched, lora.unmatched) == (1, ())


@pytest.mark.parametrize(("name", "updated"), [("both", 1), ("model", 0)])
def test_a_quantised_model_is_in_nobodys_way_at_strength_0(
    name: str, updated: int, quantised: Any, worker: LoRAWorker
) -> None:
    assert worker.apply_to_pipeline(quantised, [(name, 0.0, 1.0)]).weights_updated == updated
    with pytest.raises(StackError, match=REFUSAL.format(name)):
        worker.apply_to_pipeline(quantised, [(name, 1.0, 0.0)])


def quantise_in_place(pipeline: Any, kind: str) -> None:
    """As torchao's `quantize_`: the module stays, its weight is another."""
    pipeline.transformer.get_submodule(PATH).weight = PACKED[kind]()


@pytest.mark.parametrize("kind", PACKED)
def test_a_stack_that_was_quantised_with_its_model_is_told(kind: str, worker: LoRAWorker) -> None:
    """Its bits are no longer the base's, and the copy no longer fits."""
    pipeline: Any = FluxLike(transformer=[PATH], text_encoder=[CLIP])
    worker.apply_to_pipeline(pipeline, "both")
    text = pipeline.text_encoder.get_submodule(CLIP).weight.detach().clone()
    quantise_in_place(pipeline, kind)
    for call in (
        lambda: worker.remove_from_pipeline(pipeline),
        lambda: worker.forget(pipeline),
        lambda: worker.apply_to_pipeline(pipeline, []),
        lambda: worker.apply_to_pipeline(pipeline, "text"),
    ):
        with pytest.raises(QuantisedError, match=r"transformer was quantised .*while a stack was on.*reload"):
            call()
    assert torch.equal(pipeline.text_encoder.get_submodule(CLIP).weight, text)
    pipeline.transformer = FluxLike(transformer=[PATH]).transformer  # type: ignore[attr-defined]
    gc.collect()
    worker.forget(pipeline)
    assert worker.status().base_copy_bytes == 0


@pytest.mark.parametrize("kind", PACKED)
def test_copies_of_weights_that_were_quantised_without_a_stack_are_dropped(kind: str, worker: LoRAWorker) -> None:
    pipeline: Any = FluxLike(transformer=[PATH])
    worker.apply_to_pipeline(pipeline, "model")
    worker.remove_from_pipeline(pipeline)
    quantise_in_place(pipeline, kind)
    assert worker.apply_to_pipeline(pipeline, []).loras == ()
    assert worker.status().base_copy_bytes > 0
    worker.forget(pipeline)
    assert worker.status().base_copy_bytes == 0
