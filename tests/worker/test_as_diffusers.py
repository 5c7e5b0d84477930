"""What `load_lora_weights` does beyond converting keys: done here too, or told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.loaders import MiniMaxH3LoraLoaderMixin
from safetensors.torch import save_file

from warmstack.worker.errors import StackError
from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import (
    FEATURES,
    FluxLike,
    OtherPipeline,
    StableDiffusionXLLike,
    delta,
    kohya_pair,
)

MakeWorker = Callable[..., LoRAWorker]
Tensors = dict[str, torch.Tensor]


class Unpadded(OtherPipeline):
    """Of a family whose loader does not pad."""

    _lora_loadable_modules = ("transformer",)

    @classmethod
    def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
        return state


def embedder(in_features: int, out_features: int = FEATURES) -> Tensors:
    return {
        "transformer.x_embedder.lora_A.weight": torch.rand(4, in_features, dtype=torch.bfloat16),
        "transformer.x_embedder.lora_B.weight": torch.rand(out_features, 4, dtype=torch.bfloat16),
    }


def test_a_lora_for_fewer_channels_is_padded_as_diffusers_pads_it(tmp_path: Path, make_worker: MakeWorker) -> None:
    """Flux Fill and Control take more channels than the Flux that LoRAs are trained on."""
    tensors = embedder(FEATURES - 3)
    save_file(tensors, tmp_path / "it.safetensors")
    pipeline: Any = FluxLike(transformer=["x_embedder"])
    weight = pipeline.transformer.get_submodule("x_embedder").weight
    base = weight.detach().clone()
    padded = FluxPipeline._maybe_expand_lora_state_dict(pipeline.transformer, dict(tensors))
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "it").loras
    assert (lora.matched, lora.unmatched, lora.matched_share) == (1, (), 1.0)
    up, down = (padded[f"transformer.x_embedder.{side}.weight"].float() for side in ("lora_B", "lora_A"))
    assert down.shape == (4, FEATURES)
    torch.testing.assert_close(weight - base, up @ down, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pipeline", "tensors"),
    [
        (Unpadded, embedder(FEATURES - 3)),
        (FluxLike, embedder(FEATURES + 3)),
        (FluxLike, embedder(FEATURES - 3, FEATURES - 1)),
    ],
    ids=["another family", "more channels", "other outputs"],
)
def test_what_diffusers_does_not_pad_is_for_another_model(
    pipeline: type[OtherPipeline], tensors: Tensors, tmp_path: Path, make_worker: MakeWorker
) -> None:
    save_file(tensors, tmp_path / "it.safetensors")
    with pytest.raises(StackError, match="made for another model"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline(transformer=["x_embedder"]), "it")  # type: ignore[arg-type]


def test_a_module_without_an_alpha_counts_in_full_whatever_the_others_have(
    tmp_path: Path, make_worker: MakeWorker
) -> None:
    """As its trainer meant it. Diffusers would give it the alpha that most of the others have."""
    layer = "text_model.encoder.layers.0.mlp"
    names = {f"lora_te1_text_model_encoder_layers_0_mlp_{path}": f"{layer}.{path}" for path in ("fc1", "fc2")}
    (with_alpha, without), paths = names, list(names.values())
    tensors = {**kohya_pair(with_alpha, 1, alpha=1.0), **kohya_pair(without, 2, alpha=None)}
    save_file(tensors, tmp_path / "it.safetensors")
    pipeline: Any = StableDiffusionXLLike(text_encoder=paths)
    weights = {name: pipeline.text_encoder.get_submodule(path).weight for name, path in names.items()}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "it")
    for name, weight in weights.items():
        torch.testing.assert_close(weight - before[name], delta(tensors, name), rtol=1e-5, atol=1e-5)


class MiniMaxLike(OtherPipeline):
    _lora_loadable_modules = MiniMaxH3LoraLoaderMixin._lora_loadable_modules
    transformer_name = MiniMaxH3LoraLoaderMixin.transformer_name
    transformer_ref_name = MiniMaxH3LoraLoaderMixin.transformer_ref_name
    lora_state_dict: Any = MiniMaxH3LoraLoaderMixin.lora_state_dict


MINIMAX = "transformer_blocks.0.ff.net.2"


@pytest.mark.parametrize(
    ("beside", "header", "scale"),
    [
        ({}, {"alpha": "8"}, 2.0),
        ({}, {"alpha": "half"}, 1.0),
        ({"blocks.0.mlp.fc2.alpha": torch.tensor(2.0)}, {"alpha": "8"}, 0.5),
        ({}, {"alpha": "8", "lora_adapter_metadata": '{"transformer.r": 4, "transformer.lora_alpha": 12}'}, 3.0),
    ],
    ids=["alone", "no number", "beside alphas", "beside a configuration"],
)
def test_the_alpha_in_the_header_of_a_minimax_lora_counts_as_in_diffusers(
    beside: Tensors, header: dict[str, str], scale: float, tmp_path: Path, make_worker: MakeWorker
) -> None:
    name = "blocks.0.mlp.fc2"
    factors = {"lora_down": torch.rand(4, FEATURES), "lora_up": torch.rand(FEATURES, 4)}
    save_file(
        {f"{name}.{side}.weight": value for side, value in factors.items()} | beside,
        tmp_path / "it.safetensors",
        header,
    )
    pipeline: Any = MiniMaxLike(transformer=[MINIMAX])
    weight = pipeline.transformer.get_submodule(MINIMAX).weight
    base = weight.detach().clone()
    _, told = MiniMaxH3LoraLoaderMixin.lora_state_dict(str(tmp_path / "it.safetensors"), return_lora_metadata=True)
    assert (told or {}).get("transformer.lora_alpha") == {2.0: 8, 3.0: 12}.get(scale), (
        "or diffusers means it otherwise now"
    )
    make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "it")
    expected = scale * factors["lora_up"] @ factors["lora_down"]
    torch.testing.assert_close(weight - base, expected, rtol=1e-5, atol=1e-5)
