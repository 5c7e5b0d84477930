"""Inputs and outputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from .models.model_files import ModelFiles
from .models.model_weights import strategy_names

LoraStackType = io.Custom("LORA_STACK")
"""The list of (name, strength_model, strength_clip) that other packs' stackers and loaders use."""


def loras_input() -> io.String.Input:
    return io.String.Input(
        "loras",
        multiline=True,
        default="",
        placeholder='[{"name": "styles/ink", "strength_model": 0.8, "strength_clip": 0.8}]  or  <lora:styles/ink:0.8>',
        tooltip="The LoRAs: a JSON list, a request object, or <lora:name:strength> tags.",
        dynamic_prompts=False,
    )


def lora_stack_input() -> object:
    return LoraStackType.Input("lora_stack", optional=True, tooltip="LoRAs that come before the ones written here.")


def model_file_input(name: str, files: ModelFiles) -> io.Combo.Input:
    return io.Combo.Input(
        name, options=files.names(), tooltip="The file; for shards, their index (.safetensors.index.json)."
    )


def strategy_input() -> io.Combo.Input:
    return io.Combo.Input(
        "strategy",
        options=strategy_names(),
        default="auto",
        optional=True,
        tooltip="How the file is read. auto decides by size, memory and disk. GGUF has a way of its own.",
    )


def stack_output() -> object:
    return LoraStackType.Output(display_name="lora_stack")
