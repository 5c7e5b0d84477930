"""Load Checkpoint: the weights by a strategy of ours; model, text encoder and VAE by the host's own detection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sd
from comfy_api.latest import io

from .inputs import model_file_input, strategy_input
from .models.linked_names import WrittenName
from .models.model_loading import load_by_host, state, verdict
from .runtime import get_runtime

_ALL = ("model", "clip", "vae")


class LoadCheckpoint(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoadCheckpoint",
            display_name="Load Checkpoint (WarmStack)",
            category="WarmStack",
            description="Loads a checkpoint from safetensors, from shards or from GGUF, by a strategy of choice.",
            search_aliases=["checkpoint loader", "sharded", "load checkpoint", "warmstack"],
            inputs=[model_file_input("ckpt_name", get_runtime().checkpoints), strategy_input()],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    async def validate_inputs(cls, ckpt_name: str | None = None, strategy: str | None = None) -> bool | str:
        return await verdict(get_runtime().checkpoints, ckpt_name, strategy)

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str | None = None, **_: object) -> str:
        runtime = get_runtime()
        return state(runtime.checkpoints, runtime.linked_checkpoints, ckpt_name)

    @classmethod
    def execute(cls, ckpt_name: str, strategy: str = "auto") -> io.NodeOutput:
        runtime = get_runtime()
        path = runtime.checkpoints.find(ckpt_name)
        runtime.linked_checkpoints.note([WrittenName(ckpt_name)])
        parts = _load(ckpt_name, path, strategy, _ALL)
        _tell_how_to_reload(parts, (ckpt_name, path, strategy))
        return io.NodeOutput(*parts)


def _load(
    name: str, path: str, strategy: str, wanted: Sequence[str], disable_dynamic: bool = False
) -> tuple[Any, Any, Any, str]:
    """(patcher, clip, vae, report), None for what is not wanted."""
    found, report = load_by_host(
        "checkpoint",
        comfy.sd.load_state_dict_guess_config,
        (name, path, strategy),
        output_model="model" in wanted,
        output_clip="clip" in wanted,
        output_vae="vae" in wanted,
        embedding_directory=list(get_runtime().embedding_folders()),
        disable_dynamic=disable_dynamic,
    )
    return (*found[:3], report)


def _tell_how_to_reload(parts: tuple[Any, Any, Any, str], arguments: tuple[str, str, str]) -> None:
    """The host makes another patcher of a model for another device by loading it again."""
    model, clip, vae, _ = parts
    if model is not None:
        model.cached_patcher_init = (_load, (*arguments, ("model",)), 0)
    for part, wanted in ((clip, "clip"), (vae, "vae")):
        patcher = getattr(part, "patcher", None)
        if patcher is not None:
            patcher.cached_patcher_init = (_load_patcher, (*arguments, wanted))


def _load_patcher(name: str, path: str, strategy: str, wanted: str, disable_dynamic: bool = False) -> Any:
    _, clip, vae, _ = _load(name, path, strategy, (wanted,), disable_dynamic)
    return (clip if wanted == "clip" else vae).patcher
