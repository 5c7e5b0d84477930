"""Pictures of the panel in the front end. WARMSTACK_SCREENSHOTS=docs/images renews those of the README."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import FakeBackend
from .browser_kit.stack_node import SEND, box_of, new_workflow, still
from .fetch_frontends import VERSIONS

if TYPE_CHECKING:
    from .browser_kit.opened import OpenedStub

    Open = Callable[..., OpenedStub]

PICTURES = {
    "panel-dark": ("dark", 1100, 1230, 0),
    "panel-light": ("light", 1100, 1230, 0),
    "panel-narrow": ("dark", 400, 1230, 0),
    "panel-wide": ("dark", 1800, 900, 540),
}


@pytest.mark.parametrize("static", VERSIONS[-1:], indirect=True)
@pytest.mark.parametrize("name", PICTURES)
def test_picture(opened: Open, backend: FakeBackend, name: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    palette, width, height, drag = PICTURES[name]
    view = opened(settings={"Comfy.ColorPalette": palette}, width=width, height=height, sharp=True)
    new_workflow(view.page)
    backend.finish_jobs()
    view.page.evaluate(SEND, backend.status())
    view.open_panel()
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text(str(len(backend.rows)))
    if drag:
        _widen(view, drag)
    still(view.panel)
    box = view.panel.bounding_box()
    assert box is not None and box["width"] >= 220
    folder = _folder(tmp_path)
    clip = {"x": 0, "y": 0, "width": box["x"] + box["width"] + 1, "height": height}
    view.page.screenshot(path=folder / f"{name}.png", clip=clip)  # type: ignore[arg-type]
    assert (folder / f"{name}.png").stat().st_size > 20_000


@pytest.mark.parametrize("static", VERSIONS[-1:], indirect=True)
def test_picture_of_the_stack_editor(opened: Open, backend: FakeBackend, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    view = opened(settings={"Comfy.VueNodes.Enabled": True}, width=1000, height=700, sharp=True)
    rows = [("styles/ink_wash_v3", 0.8, 0.5), ("characters/aurora_knight", 1, 1), ("styles/ink_wash", 0.6, 0.6)]
    text = json.dumps([{"name": name, "strength_model": m, "strength_clip": c} for name, m, c in rows])
    new_workflow(view.page)
    view.page.evaluate(
        """(text) => {
          const { app } = window.comfyAPI.app
          const node = LiteGraph.createNode('WarmStackLoadLoraStack')
          node.pos = [120, 110]
          node.title = 'Load LoRA Stack'
          app.graph.add(node)
          node.setSize([460, node.size[1]])
          node.widgets.find((widget) => widget.name === 'loras').value = text
          node.onConfigure({})
          app.canvas.ds.reset()
        }""",
        text,
    )
    expect(view.page.locator(".ws-stack-row[data-state=missing]")).to_have_count(1)
    fact = {"base_model": "sdxl", "outcome": "hit", "warning": ""}
    shares = zip(rows[:2], (1.0, 0.971), strict=True)
    told = [{"name": f"{name}.safetensors", "share": share, **fact} for (name, *_), share in shares]
    view.page.evaluate(
        "(report) => window.comfyAPI.app.app.graph.nodes[0].onExecuted({ warmstack_report: [report] })",
        json.dumps({"rows": told, "notes": []}),
    )
    expect(view.page.get_by_role("list", name="Last run").get_by_role("listitem")).to_have_count(2)
    still(view.page.locator(".ws-stack"))
    folder = _folder(tmp_path)
    clip = {"x": 90, "y": 40, "width": 530, "height": 450}
    view.page.screenshot(path=folder / "stack-editor.png", clip=clip)  # type: ignore[arg-type]
    assert (folder / "stack-editor.png").stat().st_size > 20_000


def _folder(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("WARMSTACK_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _widen(view: OpenedStub, by: int) -> None:
    """Drags the edge between panel and graph."""
    edge = box_of(view.page.locator("[role=separator]").first)
    view.page.mouse.move(edge["x"], 500)
    view.page.mouse.down()
    view.page.mouse.move(edge["x"] + by, 500, steps=4)
    view.page.mouse.up()
    view.page.mouse.move(edge["x"] + by + 200, 600)
