"""The example with rgthree's loader, beside the real pack in a real ComfyUI: COMFYUI_RGTHREE is a checkout of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostkit.models import lora_path, write_models
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_lora import write_sd15_lora

from ..nodes.example_nodes import RGTHREE, STOCK, ours
from ..prefetch.references.ui_workflow import Json, api_prompt
from .browser_kit.stub_host import QUIET
from .browser_kit.workflow_page import QUEUE, take_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .browser_kit.opened import Opened

PACK = os.environ.get("COMFYUI_RGTHREE", "")

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        HostInstall.from_environment() is None or not PACK,
        reason="needs a real ComfyUI and rgthree-comfy: set COMFYUI_PATH, COMFYUI_PYTHON and COMFYUI_RGTHREE",
    ),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "with_rgthree.json"
WIDGETS = {name: declared.widgets for name, declared in (STOCK | RGTHREE | ours()).items()}
NAMES = ("characters/mira", "styles/ink", "styles/moss", "styles/oil")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    base = make_base_directory(tmp_path_factory.mktemp("comfyui"))
    # A copy: the pack writes beside itself.
    shutil.copytree(PACK, base / "custom_nodes" / "rgthree-comfy", ignore=shutil.ignore_patterns(".git"))
    write_models(base, flux=False)
    for seed, name in enumerate(NAMES):
        write_sd15_lora(lora_path(base, f"{name}.safetensors"), seed=seed)
    checkpoints = base / "models" / "checkpoints"
    (checkpoints / "sd_xl_base_1.0.safetensors").symlink_to(checkpoints / "tiny_sd15.safetensors")
    install = HostInstall.from_environment()
    assert install is not None, "the tests are skipped before this"
    with HostServer(install, base) as server:
        server.client.post("/settings", QUIET)
        yield server


@pytest.fixture
def view(browser: Browser, host: HostServer) -> Iterator[Opened]:
    from .browser_kit.opened import Opened

    opened = Opened(browser, f"{host.client.url}/")
    opened.boot()
    yield opened
    faults = opened.faults()
    opened.close()
    assert faults == []


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
