"""The converter where ComfyUI's templates leave it untried."""

from __future__ import annotations

from typing import Any

from .lora_templates import WIDGETS, lora_templates
from .ui_workflow import MUTED, Json, api_prompt


def loader_of(workflow: Json) -> Json:
    """Inputs of the one LoRA loader that is queued."""
    (node,) = (n for n in api_prompt(workflow, WIDGETS).values() if n["class_type"] == "LoraLoaderModelOnly")
    inputs: Json = node["inputs"]
    return inputs


def showing(name: str, value: Any) -> Json:
    """A template whose outer node shows `value` where its subgraph was saved with another LoRA."""
    workflow = lora_templates()["flux1_dev_uso_reference_image_gen.json"]
    host = next(node for node in workflow["nodes"] if name in (node.get("widgets_values") or ()) and node["mode"] == 0)
    host["widgets_values"][host["widgets_values"].index(name)] = value
    return workflow


def test_the_outer_value_of_a_promoted_widget_counts() -> None:
    saved = "uso-flux1-dit-lora-v1.safetensors"
    assert loader_of(showing(saved, saved))["lora_name"] == saved
    assert loader_of(showing(saved, "other.safetensors"))["lora_name"] == "other.safetensors"


def test_a_muted_node_is_gone_and_feeds_nothing() -> None:
    workflow = lora_templates()["video_wan2_2_14B_s2v.json"]
    loader = next(node for node in workflow["nodes"] if node["type"] == "LoraLoaderModelOnly")
    assert [str(loader["id"]), 0] in [value for node in _inputs(workflow) for value in node.values()]
    loader["mode"] = MUTED
    assert str(loader["id"]) not in api_prompt(workflow, WIDGETS)
    assert [str(loader["id"]), 0] not in [value for node in _inputs(workflow) for value in node.values()]


def _inputs(workflow: Json) -> list[Json]:
    return [node["inputs"] for node in api_prompt(workflow, WIDGETS).values()]
