"""Converters that compute: alpha counts once, and what is in memory stays what is in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import FluxLike, OtherFluxLike, OtherPipeline, WanLike, delta, kohya_pair

MakeWorker = Callable[..., LoRAWorker]
Tensors = dict[str, torch.Tensor]
Homes = Mapping[str, tuple[str, str]]
"""Modules of a file -> component and path of the weight."""

CLIP = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
CLIP_HOME = "text_model.encoder.layers.0.mlp.fc1"
FLUX_OUT = "lora_unet_single_blocks_0_linear2"
FLUX_OUT_HOME = "single_transformer_blocks.0.proj_out"
FLUX_HOMES: Homes = {CLIP: ("text_encoder", CLIP_HOME), FLUX_OUT: ("transformer", FLUX_OUT_HOME)}
WAN_HOMES: Homes = {
    "diffusion_model.blocks.0.self_attn.q": ("transformer", "blocks.0.attn1.to_q"),
    "diffusion_model.blocks.0.cross_attn.k": ("transformer", "blocks.0.attn2.to_k"),
    "diffusion_model.blocks.0.ffn.0": ("transformer", "blocks.0.ffn.net.0.proj"),
}


def flux_file(alpha: float) -> Tensors:
    return {**kohya_pair(CLIP, 1, alpha=alpha), **kohya_pair(FLUX_OUT, 2, alpha=alpha)}


def wan_file(alpha: float) -> Tensors:
    pairs = [kohya_pair(module, seed, alpha=alpha) for seed, module in enumerate(WAN_HOMES)]
    return {key: value for tensors in pairs for key, value in tensors.items()}


def flux(kind: type[FluxLike] = FluxLike) -> Any:
    return kind(transformer=[FLUX_OUT_HOME], text_encoder=[CLIP_HOME])


def wan() -> Any:
    return WanLike(transformer=[path for _, path in WAN_HOMES.values()])


def updates(worker: LoRAWorker, pipeline: OtherPipeline, homes: Homes) -> Tensors:
    """What one application adds to each weight, by the module of the file."""
    weights: dict[str, Any] = {
        module: getattr(pipeline, component).get_submodule(path).weight for module, (component, path) in homes.items()
    }
    before = {module: weight.detach().clone() for module, weight in weights.items()}
    worker.apply_to_pipeline(pipeline, "it")  # type: ignore[arg-type]
    after = {module: weight.detach() - before[module] for module, weight in weights.items()}
    worker.remove_from_pipeline(pipeline)  # type: ignore[arg-type]
    return after


@pytest.mark.parametrize("alpha", [1.0, 4.0, 16.0], ids="alpha {}".format)
@pytest.mark.parametrize(
    ("tensors_of", "pipelines", "homes"),
    [
        (flux_file, lambda: [flux(), flux(), flux(OtherFluxLike)], FLUX_HOMES),
        (wan_file, lambda: [wan(), wan()], WAN_HOMES),
    ],
    ids=["flux", "wan"],
)
def test_alpha_counts_once_however_often_the_file_is_converted(
    tensors_of: Callable[[float], Tensors],
    pipelines: Callable[[], list[Any]],
    homes: Homes,
    alpha: float,
    tmp_path: Path,
    make_worker: MakeWorker,
) -> None:
    """The converters scale some factors in place; rank is 4."""
    tensors = tensors_of(alpha)
    save_file(tensors, tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    for pipeline in pipelines():
        for module, update in updates(worker, pipeline, homes).items():
            torch.testing.assert_close(update, delta(tensors, module), rtol=1e-5, atol=1e-5)
    with worker.cache.acquire(worker.catalog.find("it")) as lease:
        assert lease.outcome == "hit"
        assert all(torch.equal(lease.adapter.tensors[key], value) for key, value in tensors.items())


class Writes(OtherPipeline):
    """A converter that writes in every way there is, into factors without an alpha too."""

    _lora_loadable_modules = ("transformer",)

    @classmethod
    def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
        state["transformer.a.lora_A.weight"] *= 2
        state["transformer.b.lora_A.weight"][0].add_(1)
        state["transformer.b.lora_B.weight"].data[:, 1] = 0
        torch.mul(state["transformer.a.lora_B.weight"], 3, out=state["transformer.a.lora_B.weight"])
        return state


def test_no_converter_writes_into_the_adapter(tmp_path: Path, make_worker: MakeWorker) -> None:
    factors = {"a.lora_A": (2, 8), "a.lora_B": (8, 2), "b.lora_A": (2, 8), "b.lora_B": (8, 2)}
    tensors = {f"transformer.{name}.weight": torch.rand(shape) for name, shape in factors.items()}
    save_file(tensors, tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    found = updates(worker, Writes(transformer=["a", "b"]), {"a": ("transformer", "a"), "b": ("transformer", "b")})
    with worker.cache.acquire(worker.catalog.find("it")) as lease:
        assert all(torch.equal(lease.adapter.tensors[key], value) for key, value in tensors.items())
    expected = Writes.lora_state_dict({key: value.clone() for key, value in tensors.items()})
    for module, update in found.items():
        up, down = (expected[f"transformer.{module}.{side}.weight"] for side in ("lora_B", "lora_A"))
        torch.testing.assert_close(update, up @ down, rtol=1e-5, atol=1e-5)
