"""Workflows in the front end of a real ComfyUI: nothing is missing, and what is shown is what is queued.

WARMSTACK_THUMBNAILS=example_workflows renews the pictures of the examples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostkit.server import HostServer

from warmstack.prefetch.references import references

from ..nodes.example_nodes import STOCK, ours
from ..prefetch.references.lora_templates import WIDGETS as TEMPLATE_WIDGETS
from ..prefetch.references.lora_templates import lora_templates, output_nodes
from ..prefetch.references.ui_workflow import Json, api_prompt
from .browser_kit.real_host import NEEDS_COMFYUI, make_base, running
from .browser_kit.workflow_page import QUEUE, take_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .browser_kit.opened import Opened

pytestmark = NEEDS_COMFYUI

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
FILES = sorted(path for path in EXAMPLES.glob("*.json") if path.stem != "with_rgthree")
"""The other one is `test_rgthree_on_comfyui`'s."""
WIDGETS = {name: declared.widgets for name, declared in (STOCK | ours()).items()}
STYLES = [f"styles/{name}.safetensors" for name in ("ink", "moss", "oil", "pastel")]
LORAS = ["characters/mira.safetensors", *STYLES]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    with running(make_base(tmp_path_factory.mktemp("comfyui"), LORAS)) as server:
        yield server


def read(path: Path) -> Json:
    workflow: Json = json.loads(path.read_text(encoding="utf-8"))
    return workflow


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loads_without_a_complaint_and_queues_what_it_shows(view: Opened, path: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    workflow = read(path)
    queued = view.page.evaluate(QUEUE, workflow)
    assert {node_id: {key: node[key] for key in ("class_type", "inputs")} for node_id, node in queued.items()} == (
        api_prompt(workflow, WIDGETS)
    )
    expect(view.page.locator(".p-toast-message, .p-dialog, [role=dialog]")).to_have_count(0)
    take_picture(view, path.stem, tmp_path)


def test_every_job_of_the_sweep_takes_the_next_lora_of_the_category(view: Opened) -> None:
    view.page.evaluate(QUEUE, read(EXAMPLES / "sweep_in_40_jobs.json"))
    view.page.evaluate(
        """async () => {
            const { api } = window.comfyAPI.api;
            window.asked = [];
            api.queuePrompt = async (number, { output }) => {
                window.asked.push(output);
                return { prompt_id: String(window.asked.length), number, node_errors: {} };
            };
            await window.comfyAPI.app.app.queuePrompt(0, 4);
        }"""
    )
    asked = view.page.evaluate("window.asked")
    inputs = [node["inputs"] for prompt in asked for node in prompt.values()]
    loras = [values["lora_name"] for values in inputs if "lora_name" in values]
    assert loras == STYLES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_templates_are_converted_as_the_front_end_does_it(browser: Browser, host: HostServer) -> None:
    """The tests of the references without a browser stand on this converter. Faults do not count here: the front end
    asks a server outside about nodes that this host lacks."""
    from .browser_kit.opened import Opened

    def loras(prompt: Json) -> list[tuple[object, ...]]:
        found = references(prompt, output_nodes(prompt)).loras
        return sorted((lora.node_id, lora.name, str(lora.strength_model), str(lora.strength_clip)) for lora in found)

    view = Opened(browser, f"{host.client.url}/")
    view.boot()
    differing = {
        name: (converted, queued)
        for name, workflow in lora_templates().items()
        if (converted := loras(api_prompt(workflow, TEMPLATE_WIDGETS)))
        != (queued := loras(view.page.evaluate(QUEUE, workflow)))
    }
    view.close()
    assert differing == {}


def test_the_outer_value_of_a_promoted_widget_is_queued(browser: Browser, host: HostServer) -> None:
    from .browser_kit.opened import Opened

    saved, shown = "uso-flux1-dit-lora-v1.safetensors", LORAS[0]
    workflow = lora_templates()["flux1_dev_uso_reference_image_gen.json"]
    outer = next(node for node in workflow["nodes"] if saved in (node.get("widgets_values") or ()) and not node["mode"])
    outer["widgets_values"][outer["widgets_values"].index(saved)] = shown
    view = Opened(browser, f"{host.client.url}/")
    view.boot()
    queued = view.page.evaluate(QUEUE, workflow)
    view.close()
    for prompt in (queued, api_prompt(workflow, TEMPLATE_WIDGETS)):
        assert [lora.name for lora in references(prompt, output_nodes(prompt)).loras] == [shown]
