"""Every node has a help page, and the example on it is one that the node takes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_NODES = sorted((_ROOT / "nodes").glob("*_node.py"))
_SHARED_INPUTS = {"loras_input": "loras", "lora_stack_input": "lora_stack"}


def _calls(source: Path) -> Iterator[tuple[str, list[ast.expr], dict[str, ast.expr]]]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node.args, {keyword.arg or "": keyword.value for keyword in node.keywords}


def _node_id(source: Path) -> str:
    return next(str(ast.literal_eval(named["node_id"])) for name, _, named in _calls(source) if name == "Schema")


def _inputs(source: Path) -> set[str]:
    written = {str(ast.literal_eval(args[0])) for name, args, _ in _calls(source) if name == "Input"}
    return written | {_SHARED_INPUTS[name] for name, _, _ in _calls(source) if name in _SHARED_INPUTS}


def _page(source: Path) -> str:
    return (_ROOT / "web" / "docs" / f"{_node_id(source)}.md").read_text(encoding="utf-8")


def test_every_page_belongs_to_a_node() -> None:
    pages = {path.stem for path in (_ROOT / "web" / "docs").glob("*.md")}
    assert pages == {_node_id(source) for source in _NODES} and len(pages) == 9


@pytest.mark.parametrize("source", _NODES, ids=lambda path: path.stem)
def test_the_example_is_one_that_the_node_takes(source: Path) -> None:
    blocks = re.findall(r"```json\n(.+?)```", _page(source), re.DOTALL)
    assert blocks
    for block in blocks:
        example = json.loads(block)
        assert example["class_type"] == _node_id(source)
        assert example["inputs"].keys() <= _inputs(source)


@pytest.mark.parametrize("source", _NODES, ids=lambda path: path.stem)
def test_every_input_is_explained(source: Path) -> None:
    page = _page(source)
    assert [name for name in _inputs(source) if f"`{name}`" not in page] == []
