"""The example with rgthree's loader, beside the real pack in a real ComfyUI: COMFYUI_RGTHREE is a checkout of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostkit.server import HostServer

from ..nodes.example_nodes import RGTHREE, STOCK, ours
from ..prefetch.references.ui_workflow import Json, api_prompt
from .browser_kit.real_host import NEEDS_COMFYUI, make_base, running
from .browser_kit.workflow_page import QUEUE, take_picture

if TYPE_CHECKING:
    from .browser_kit.opened import Opened

PACK = os.environ.get("COMFYUI_RGTHREE", "")

pytestmark = [
    *NEEDS_COMFYUI,
    pytest.mark.skipif(not PACK, reason="needs rgthree-comfy: set COMFYUI_RGTHREE, a checkout of it"),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "with_rgthree.json"
WIDGETS = {name: declared.widgets for name, declared in (STOCK | RGTHREE | ours()).items()}
LORAS = [f"{name}.safetensors" for name in ("characters/mira", "styles/ink", "styles/moss", "styles/oil")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    base = make_base(tmp_path_factory.mktemp("comfyui"), LORAS)
    # A copy: the pack writes beside itself.
    shutil.copytree(PACK, base / "custom_nodes" / "rgthree-comfy", ignore=shutil.ignore_patterns(".git"))
    with running(base) as server:
        yield server


def read() -> Json:
    workflow: Json = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return workflow


def small(prompt: Json) -> Json:
    sizes = {"EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 1, "cfg": 1.0}}
    return {
        node_id: {**node, "inputs": {**node["inputs"], **sizes.get(node["class_type"], {})}}
        for node_id, node in prompt.items()
    }


def test_loads_without_a_complaint_and_queues_what_it_shows(view: Opened, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    workflow = read()
    queued = view.page.evaluate(QUEUE, workflow)
    assert {node_id: {key: node[key] for key in ("class_type", "inputs")} for node_id, node in queued.items()} == (
        api_prompt(workflow, WIDGETS)
    )
    expect(view.page.locator(".p-toast-message, .p-dialog, [role=dialog]")).to_have_count(0)
    take_picture(view, "with_rgthree", tmp_path)


def test_every_loader_is_planned_and_the_picture_is_made(view: Opened, host: HostServer) -> None:
    prompt = small(view.page.evaluate(QUEUE, read()))
    plan = host.client.post("/warmstack/v1/plan", {"prompt": prompt})
    assert plan["unknown"] == []
    assert {(lora["class_type"], lora["file"], lora["state"], lora["tier"]) for lora in plan["loras"]} == {
        ("LoraLoader", "styles/oil.safetensors", "found", "page"),
        ("Power Lora Loader (rgthree)", "characters/mira.safetensors", "found", "page"),
        ("WarmStackLoadLoraStack", "styles/ink.safetensors", "found", "resident"),
    }
    (finished,) = host.client.run(prompt)
    assert finished.status == "success", finished.messages
    assert len(finished.output("images")) == 1
