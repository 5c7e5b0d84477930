"""Load Diffusion Model: the weights by a strategy of ours, the model by the host's own detection."""

from __future__ import annotations

from typing import Any

import comfy.sd
import torch
from comfy_api.latest import io

from .inputs import model_file_input, strategy_input
from .models.linked_names import WrittenName
from .models.model_loading import load_by_host, state, verdict
from .runtime import get_runtime

_MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}
"""As the stock loader passes them."""


class LoadDiffusionModel(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoadDiffusionModel",
            display_name="Load Diffusion Model (WarmStack)",
            category="WarmStack",
            description="Loads a diffusion model from safetensors, from shards or from GGUF, by a strategy of choice.",
            search_aliases=["unet loader", "gguf", "sharded", "load diffusion model", "warmstack"],
            inputs=[
                model_file_input("unet_name", get_runtime().diffusion_models),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_MODEL_OPTIONS),
                    default="default",
                    optional=True,
                    tooltip="What the weights are kept in, as in the stock loader.",
                ),
                strategy_input(),
            ],
            outputs=[io.Model.Output(display_name="model"), io.String.Output(display_name="report")],
        )

    @classmethod
    async def validate_inputs(cls, unet_name: str | None = None, strategy: str | None = None) -> bool | str:
        return await verdict(get_runtime().diffusion_models, unet_name, strategy)

    @classmethod
    def fingerprint_inputs(cls, unet_name: str | None = None, **_: object) -> str:
        runtime = get_runtime()
        return state(runtime.diffusion_models, runtime.linked_diffusion_models, unet_name)

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str = "default", strategy: str = "auto") -> io.NodeOutput:
        runtime = get_runtime()
        path = runtime.diffusion_models.find(unet_name)
        runtime.linked_diffusion_models.note([WrittenName(unet_name)])
        return io.NodeOutput(*_load(unet_name, path, strategy, weight_dtype))


def _load(name: str, path: str, strategy: str, weight_dtype: str, disable_dynamic: bool = False) -> tuple[Any, str]:
    """(patcher, report). The host calls it again when it wants another patcher of the same model."""
    patcher, report = load_by_host(
        "diffusion model",
        comfy.sd.load_diffusion_model_state_dict,
        (name, path, strategy),
        model_options=dict(_MODEL_OPTIONS[weight_dtype]),
        disable_dynamic=disable_dynamic,
    )
    patcher.cached_patcher_init = (_load, (name, path, strategy, weight_dtype), 0)
    return patcher, report
