"""References from real workflows: every template of ComfyUI that bears LoRAs, as the front end would queue it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from warmstack.prefetch.references import references

from .lora_templates import WIDGETS, lora_templates, output_nodes
from .shown_loras import Walk
from .ui_workflow import Json, api_prompt

WORKFLOWS = lora_templates()


def found_in(workflow: Json) -> Counter[tuple[Any, ...]]:
    prompt = api_prompt(workflow, WIDGETS)
    outputs = output_nodes(prompt)
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
