"""The node with the stack editor, as the tests put it into a graph and read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator, Page

APP = "window.comfyAPI.app.app"
INK = {"name": "styles/ink_wash_v3.safetensors", "strength_model": 0.8, "strength_clip": 0.5}
KNIGHT = {"name": "characters/aurora_knight.safetensors", "strength_model": 1, "strength_clip": 1}
LINOCUT = {"name": "styles/linocut.safetensors", "strength_model": 1, "strength_clip": 1}


def add_node(page: Page, text: str = "") -> Locator:
    page.evaluate(
        f"""(text) => {{
          const node = LiteGraph.createNode('WarmStackLoadLoraStack')
          node.pos = [420, 120]
          {APP}.graph.add(node)
          node.widgets.find((widget) => widget.name === 'loras').value = text
          node.onConfigure?.({{}})
          {APP}.canvas.ds.reset()
        }}""",
        text,
    )
    editor = page.locator(".ws-stack")
    editor.wait_for()
    return editor


def box_of(locator: Locator) -> FloatRect:
    """Where it stands once it no longer moves: a new node is laid out over several frames, and a finger that goes by an
    earlier one misses it."""
    locator.click(trial=True)
    box = locator.bounding_box()
    assert box is not None
    return box


def text_of(page: Page) -> str:
    text: str = page.evaluate(f"{APP}.graph.nodes[0].widgets.find((widget) => widget.name === 'loras').value")
    return text


def rows_of(page: Page) -> list[dict[str, Any]]:
    text = text_of(page)
    rows: list[dict[str, Any]] = json.loads(text) if text else []
    return rows
