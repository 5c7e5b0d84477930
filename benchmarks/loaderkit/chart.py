"""The chart: every loader of a few workloads, with the floor of the machine as a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .contenders import CONTENDERS
from .report import floor_s, medians

PANELS = {
    "lora, warm": "one LoRA, 222 MB, in the page cache",
    "lora, cold": "one LoRA, 222 MB, from the disk",
    "checkpoint, cold": "one checkpoint, 4 GB, from the disk",
    "subset, cold": "30% of it, from the disk",
}
_COLOURS = {"ours": "#e4572e", "private": "#8d99ae", "views": "#c9d1dc"}


def draw(report: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    workloads = report["workloads"]
    panels = {tuple(panel.split(", ")): title for panel, title in PANELS.items()}
    panels = {key: title for key, title in panels.items() if key[1] in workloads.get(key[0], {})}
    rows = -(-len(panels) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(13, 4.5 * rows), constrained_layout=True)
    for axis, ((workload, state), title) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, medians(workloads[workload][state]), title)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    labels = ["WarmStack", "others, private copy", "others, views of the mapped file"]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _panel(axis: Any, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    kinds = {contender.name: "ours" if contender.ours else contender.memory for contender in CONTENDERS}
    shown = [(name, row["touched_s"]) for name, row in rows.items() if kinds[name] != "floor"][::-1]
    # The slowest would press all others together: its bar is cut off, and its number stands in it.
    right = 1.15 * sorted(seconds for _, seconds in shown)[-3]
    axis.barh(
        [name for name, _ in shown],
        [min(seconds, right) for _, seconds in shown],
        color=[_COLOURS[kinds[name]] for name, _ in shown],
    )
    floor = floor_s(rows)
    if floor is not None:
        axis.axvline(floor, color="black", linewidth=1, linestyle="--")
        axis.set_xlabel(f"until every page was read; dashed: the machine's floor, {_seconds(floor)}", fontsize=8)
    for place, (_, seconds) in enumerate(shown):
        _label(axis, place, seconds, right)
    axis.set_title(title, fontsize=10)
    axis.set_xlim(0, right)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _label(axis: Any, place: int, seconds: float, right: float) -> None:
    inside = seconds > 0.92 * right
    axis.annotate(
        _seconds(seconds),
        (min(seconds, right), place),
        (-4 if inside else 4, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=7,
        color="white" if inside else "black",
        bbox=None if inside else {"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
