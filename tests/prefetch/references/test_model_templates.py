"""Models of real workflows: every template of ComfyUI, as the front end would queue it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from warmstack.loaders.files.checkpoint import is_weight_file
from warmstack.prefetch.references import references
from warmstack.prefetch.references.model_recognisers import MODEL_INPUTS

from .lora_templates import WIDGETS
from .shown_loras import Walk
from .ui_workflow import api_prompt

MODEL_WIDGETS = {
    "AudioEncoderLoader": ("audio_encoder_name",),
    "CLIPLoader": ("clip_name", "type", "device"),
    "CLIPVisionLoader": ("clip_name",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "ControlNetLoader": ("control_net_name",),
    "DualCLIPLoader": ("clip_name1", "clip_name2", "type", "device"),
    "FrameInterpolationModelLoader": ("model_name",),
    "ImageOnlyCheckpointLoader": ("ckpt_name",),
    "LTXAVTextEncoderLoader": ("text_encoder", "ckpt_name", "device"),
    "LTXVAudioVAELoader": ("ckpt_name",),
    "LatentUpscaleModelLoader": ("model_name",),
    "LoadBackgroundRemovalModel": ("bg_removal_name",),
    "LoadDA3Model": ("model_name",),
    "LoadMoGeModel": ("model_name",),
    "ModelPatchLoader": ("name",),
    "OpticalFlowLoader": ("model_name",),
    "QuadrupleCLIPLoader": ("clip_name1", "clip_name2", "clip_name3", "clip_name4"),
    "SAM3DBody_Loader": ("model_file",),
    "StyleModelLoader": ("style_model_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "UpscaleModelLoader": ("model_name",),
    "VAELoader": ("vae_name",),
}
"""Of the loaders in these workflows, in the order in which the front end saves the values."""
NOT_WORTH_A_READ = {"ConditioningLoader"}
"""An embedding of a few megabytes."""


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    folder = files("comfyui_workflow_templates_json") / "templates"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        workflow = json.loads(entry.read_text(encoding="utf-8")) if entry.name.endswith(".json") else None
        if isinstance(workflow, dict) and "nodes" in workflow:
            yield entry.name, workflow


WORKFLOWS = dict(templates())


def nodes(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for graph in (workflow, *(workflow.get("definitions") or {}).get("subgraphs", [])):
        yield from graph["nodes"]


def test_every_class_that_shows_a_weight_file_is_in_the_table() -> None:
    subgraphs = {raw["id"] for w in WORKFLOWS.values() for raw in (w.get("definitions") or {}).get("subgraphs", [])}
    showing = {
        node["type"]
        for workflow in WORKFLOWS.values()
        for node in nodes(workflow)
        if isinstance(node.get("widgets_values"), list)
        and any(isinstance(value, str) and is_weight_file(value) for value in node["widgets_values"])
    }
    loras = {"LoraLoader", "LoraLoaderModelOnly"}
    assert len(WORKFLOWS) > 450
    # Which of them there are depends on the version of the package.
    assert showing - subgraphs - loras - NOT_WORTH_A_READ <= MODEL_WIDGETS.keys() <= MODEL_INPUTS.keys()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_exactly_the_models_that_the_widgets_name(name: str) -> None:
    found = references(api_prompt(WORKFLOWS[name], {**WIDGETS, **MODEL_WIDGETS})).models
    shown = Walk(WORKFLOWS[name]).values(MODEL_WIDGETS)
    expected = Counter()
    for (class_type, _, value), count in shown.items():
        if isinstance(value, str) and is_weight_file(value):
            expected[class_type, value] += count
    assert Counter((model.class_type, model.name) for model in found) == expected


def test_the_workflows_name_many_models() -> None:
    prompts = (api_prompt(workflow, {**WIDGETS, **MODEL_WIDGETS}) for workflow in WORKFLOWS.values())
    assert sum(len(references(prompt).models) for prompt in prompts) > 700
