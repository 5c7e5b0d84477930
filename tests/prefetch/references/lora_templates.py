"""ComfyUI's own workflow templates that bear LoRAs: real workflows, from the PyPI package that the host installs."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

WIDGETS = {
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "ComfySwitchNode": ("switch",),
    **{f"Primitive{kind}": ("value",) for kind in ("Boolean", "Float", "Int", "String", "StringMultiline")},
}
"""Of the classes that decide which LoRAs are loaded."""

OUTPUT_CLASSES = frozenset(
    {"ImageCompare", "MaskPreview", "PreviewAny", "PreviewImage"}
    | {f"Save{kind}" for kind in ("AnimatedWEBP", "AudioMP3", "Image", "ImageAdvanced", "Video")}
)
"""Of the classes in these workflows, those that the host starts from."""


def lora_templates() -> dict[str, dict[str, Any]]:
    """File name -> workflow."""
    folder = files("comfyui_workflow_templates_json") / "templates"
    texts = {
        entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".json")
    }
    found = {name: json.loads(text) for name, text in sorted(texts.items()) if "oraLoader" in text}
    return {name: workflow for name, workflow in found.items() if isinstance(workflow, dict) and "nodes" in workflow}


def output_nodes(prompt: dict[str, dict[str, Any]]) -> list[str]:
    return [node_id for node_id, node in prompt.items() if node["class_type"] in OUTPUT_CLASSES]
