"""The text of a stack in the browser is the text of a stack on the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, JSHandle

SOURCE = Path(__file__).resolve().parents[2] / "web" / "lib" / "stack_text.js"


@pytest.fixture(scope="module")
def stack_text(browser: Browser) -> Iterator[JSHandle]:
    """web/lib/stack_text.js in a bare page: it needs nothing else."""
    page = browser.new_page()
    load = "(source) => import('data:text/javascript,' + encodeURIComponent(source))"
    yield page.evaluate_handle(load, SOURCE.read_text("utf-8"))
    page.close()


@pytest.mark.parametrize(
    ("text", "is_stack"),
    [
        ("<LoRA:a:1>", True),
        ("a <lyco:b:1>", True),
        ('["a"]', True),
        ("[LoCon] ink", False),
        ("{x}", False),
        ("ink", False),
        ("7", False),
        ("null", False),
    ],
)
def test_a_name_with_brackets_is_no_stack(stack_text: JSHandle, text: str, is_stack: bool) -> None:
    assert stack_text.evaluate("({ looksLikeStack }, text) => looksLikeStack(text)", text) is is_stack


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('["a"]', [("a", 1, 1, True)]),
        ('[["a", 0.5], ["b", 0.5, 0]]', [("a", 0.5, 0.5, True), ("b", 0.5, 0, True)]),
        ('[{"lora": "a", "strength": 0.7, "strengthTwo": 0.2, "on": false}]', [("a", 0.7, 0.2, False)]),
        ('[{"name": "a", "weight": 0.8075}]', [("a", 0.8075, 0.8075, True)]),
        ('[{"name": "a", "strength": " 0.8 "}]', [("a", 0.8, 0.8, True)]),
        ('[{"name": "a", "strengthModel": 2, "strengthClip": 3}]', [("a", 2, 3, True)]),
        ('[{"name": "a", "on": " False "}]', [("a", 1, 1, False)]),
        ('[{"name": "a", "on": true, "enabled": "OFF"}]', [("a", 1, 1, False)]),
        ('[{"name": "a", "on": "perhaps"}]', None),
        ('[{"name": "a", "strength": "0.8x"}]', None),
        ('[{"name": "a", "strength": true}]', None),
        ('[{"name": "a", "strength": 1, "weight": 0.5}]', None),
        ('[["a"]]', None),
        ('[{"name": "a", "block": 3}]', None),
        ('{"lora": {"models": []}}', None),
        ("<lora:a:1>", None),
        ("", []),
    ],
)
def test_the_text_is_read_as_the_server_reads_it(
    stack_text: JSHandle, text: str, rows: list[tuple[object, ...]] | None
) -> None:
    read = stack_text.evaluate(
        "({ readRows, writeRows }, text) => [readRows(text), writeRows(readRows(text) ?? [])]", text
    )
    found = None if read[0] is None else [(row["name"], row["model"], row["clip"], row["on"]) for row in read[0]]
    assert found == rows
    if rows:
        from warmstack.lora.stacks.stack import parse_stack

        assert parse_stack(read[1]) == parse_stack(text)
