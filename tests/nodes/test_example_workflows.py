"""The example workflows: nodes that exist, with the slots and widgets that they have, and a picture for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmstack.prefetch.references import references

from ..prefetch.references.ui_workflow import BROWSER_ONLY, api_prompt
from .example_nodes import RGTHREE, STOCK, Declared, ours

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "example_workflows").glob("*.json"))
NODES: dict[str, Declared] = STOCK | RGTHREE | ours()
WIDGETS = {name: declared.widgets for name, declared in NODES.items()}
LORAS = {
    "category_sweep": (),
    "lora_request_json": ("ink", "mira"),
    "lora_stack_sdxl": ("styles/ink.safetensors", "characters/mira.safetensors"),
    "lora_tags": ("styles/ink", "mira"),
    "sweep_in_40_jobs": ("styles/ink.safetensors",),
    "with_rgthree": ("styles/oil.safetensors", "characters/mira.safetensors", "styles/ink.safetensors"),
    "with_stock_loaders": ("styles/oil.safetensors", "characters/mira.safetensors", "styles/ink.safetensors"),
}

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return workflow


def test_every_example_is_known_here() -> None:
    assert [path.stem for path in FILES] == sorted(LORAS)


@each_file
def test_every_node_has_the_slots_and_widgets_of_its_class(path: Path) -> None:
    for node in load(path)["nodes"]:
        if node["type"] in BROWSER_ONLY:
            continue
        declared = NODES[node["type"]]
        slots = () if node["type"] in RGTHREE else tuple(filter(None, declared.widgets))
        assert {entry["name"] for entry in node["inputs"]} == declared.sockets | {*slots}
        assert tuple(entry["widget"]["name"] for entry in node["inputs"] if "widget" in entry) == slots
        assert tuple(entry["type"] for entry in node["outputs"]) == declared.outputs
        assert len(node.get("widgets_values") or ()) == len(declared.widgets)


@each_file
def test_every_link_joins_slots_that_know_of_it(path: Path) -> None:
    workflow = load(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link_id, origin, out, target, into, kind in workflow["links"]:
        assert link_id in nodes[origin]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == link_id
        assert kind in (nodes[origin]["outputs"][out]["type"], nodes[target]["inputs"][into]["type"])
    assert len({link[0] for link in workflow["links"]}) == len(workflow["links"])


@each_file
def test_the_queue_tells_its_loras(path: Path) -> None:
    prompt = api_prompt(load(path), WIDGETS)
    outputs = [node_id for node_id, node in prompt.items() if node["class_type"] in ("PreviewAny", "SaveImage")]
    found = references(prompt, outputs)
    assert sorted(lora.name for lora in found.loras) == sorted(LORAS[path.stem])
    assert bool(found.unknown) == (path.stem == "category_sweep")


@each_file
def test_every_example_has_a_small_picture(path: Path) -> None:
    picture = path.with_suffix(".jpg").read_bytes()
    assert picture.startswith(b"\xff\xd8\xff")
    assert len(picture) < 150_000


@each_file
def test_an_example_that_needs_another_pack_says_so_on_the_page(path: Path) -> None:
    nodes = load(path)["nodes"]
    notes = "\n".join(str(node["widgets_values"]) for node in nodes if node["type"] == "MarkdownNote")
    assert ("rgthree-comfy" in notes) == any(node["type"] in RGTHREE for node in nodes)


def test_the_prompt_for_programs_is_the_request_example() -> None:
    prompt = load(ROOT / "docs" / "examples" / "lora_request_prompt.json")
    assert prompt == api_prompt(load(ROOT / "example_workflows" / "lora_request_json.json"), WIDGETS)
