"""References from real workflows: every template of ComfyUI that bears LoRAs, as the front end would queue it."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from warmstack.prefetch.references import references

from .shown_loras import LORA_WIDGETS, Walk
from .ui_workflow import Json, api_prompt

VALUE_CLASSES = ("Boolean", "Float", "Int", "String", "StringMultiline")
WIDGETS = {
    **LORA_WIDGETS,
    **{f"Primitive{kind}": ("value",) for kind in VALUE_CLASSES},
    "ComfySwitchNode": ("switch",),
}
OUTPUT_CLASSES = frozenset(
    {"ImageCompare", "MaskPreview", "PreviewAny", "PreviewImage"}
    | {f"Save{kind}" for kind in ("AnimatedWEBP", "AudioMP3", "Image", "ImageAdvanced", "Video")}
)
"""Of the classes in these workflows, those that the host starts from."""


def _lora_workflows() -> dict[str, Json]:
    texts = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in (files("comfyui_workflow_templates_json") / "templates").iterdir()
        if entry.name.endswith(".json")
    }
    found = {name: json.loads(text) for name, text in sorted(texts.items()) if "oraLoader" in text}
    return {name: workflow for name, workflow in found.items() if isinstance(workflow, dict) and "nodes" in workflow}


WORKFLOWS = _lora_workflows()


def found_in(workflow: Json) -> Counter[tuple[Any, ...]]:
    prompt = api_prompt(workflow, WIDGETS)
    outputs = [node_id for node_id, node in prompt.items() if node["class_type"] in OUTPUT_CLASSES]
    assert outputs
    found = references(prompt, outputs)
    assert not found.unknown
    assert not any(lora.guessed for lora in found.loras)
    return Counter(
        (lora.name, *(lora.strength_model, lora.strength_clip)[: 2 if lora.class_type == "LoraLoader" else 1])
        for lora in found.loras
    )


def test_the_package_holds_workflows_with_loras() -> None:
    assert len(WORKFLOWS) > 70
    assert sum(found_in(workflow).total() for workflow in WORKFLOWS.values()) > 90


@pytest.mark.parametrize("name", WORKFLOWS)
def test_exactly_the_loras_that_the_widgets_name(name: str) -> None:
    assert found_in(WORKFLOWS[name]) == Walk(WORKFLOWS[name]).loras()
