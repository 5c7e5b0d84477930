"""A workflow in the front end of a real ComfyUI: what Run would post, and its picture."""

from __future__ import annotations

import os
from pathlib import Path

from .opened import Opened

QUEUE = """async (workflow) => {
    const { app } = window.comfyAPI.app;
    await app.loadGraphData(workflow);
    return (await app.graphToPrompt()).output;
}"""
"""Loads a workflow; returns the prompt that Run would post."""

_PICTURE = {"x": 64, "y": 140, "width": 1290, "height": 570}
"""The part of the window that no tool bar covers."""

_SHOW = """([x, y, scale]) => {
    const canvas = window.comfyAPI.app.app.canvas;
    canvas.ds.scale = scale;
    canvas.ds.offset = [x / scale, y / scale];
    canvas.setDirty(true, true);
}"""

_TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def take_picture(view: Opened, name: str, folder: Path) -> None:
    """`name`.jpg of the graph that is open, in `folder` or where WARMSTACK_THUMBNAILS says."""
    view.page.evaluate(_SHOW, [90, 200, 0.62])
    view.page.wait_for_function(_TWO_FRAMES)
    path = Path(os.environ.get("WARMSTACK_THUMBNAILS", folder)) / f"{name}.jpg"
    view.page.screenshot(path=path, type="jpeg", quality=70, clip=_PICTURE, scale="css", animations="disabled")  # type: ignore[arg-type]
