"""Every node has a help page, and the example on it is one that the node takes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from .example_nodes import ours

_PAGES = Path(__file__).resolve().parents[2] / "web" / "docs"
_INPUTS = {node_id: declared.sockets | set(declared.widgets) for node_id, declared in ours().items()}

each_node = pytest.mark.parametrize("node_id", _INPUTS)


def _page(node_id: str) -> str:
    return (_PAGES / f"{node_id}.md").read_text(encoding="utf-8")


def test_every_page_belongs_to_a_node() -> None:
    pages = {path.stem for path in _PAGES.glob("*.md")}
    assert pages == set(_INPUTS) and len(pages) == 9


@each_node
def test_the_example_is_one_that_the_node_takes(node_id: str) -> None:
    blocks = re.findall(r"```json\n(.+?)```", _page(node_id), re.DOTALL)
    assert blocks
    for block in blocks:
        example = json.loads(block)
        assert example["class_type"] == node_id
        assert example["inputs"].keys() <= _INPUTS[node_id]


@each_node
def test_every_input_is_explained(node_id: str) -> None:
    assert [name for name in _INPUTS[node_id] if f"`{name}`" not in _page(node_id)] == []


def test_every_input_has_a_tooltip() -> None:
    calls = [
        (source.name, call)
        for source in (_PAGES.parents[1] / "nodes").glob("*.py")
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Input"
    ]
    assert len(calls) >= len(set().union(*_INPUTS.values()))
    silent = [(name, call.lineno) for name, call in calls if "tooltip" not in {word.arg for word in call.keywords}]
    assert silent == []
