"""The text of a stack in the browser is the text of a stack on the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .browser_kit.fake_backend import FakeBackend


@pytest.mark.parametrize(
    ("text", "is_stack"),
    [("<LoRA:a:1>", True), ('["a"]', True), ("[LoCon] ink", False), ("{x}", False), ("ink", False), ("7", False)],
)
def test_a_name_with_brackets_is_no_stack(component: Callable[..., Any], text: str, is_stack: bool) -> None:
    seen = component().page.evaluate(
        """(text) => import('/extensions/comfyui-warmstack/lib/stack_text.js').then((m) => m.looksLikeStack(text))""",
        text,
    )
    assert seen is is_stack


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
    component: Callable[..., Any], backend: FakeBackend, text: str, rows: list[tuple[object, ...]] | None
) -> None:
    view = component()
    read = view.page.evaluate(
        """async (text) => {
          const { readRows, writeRows } = await import('/extensions/comfyui-warmstack/lib/stack_text.js')
          return [readRows(text), writeRows(readRows(text) ?? [])]
        }""",
        text,
    )
    found = None if read[0] is None else [(row["name"], row["model"], row["clip"], row["on"]) for row in read[0]]
    assert found == rows
    if rows:
        from warmstack.lora.stack import parse_stack

        assert parse_stack(read[1]) == parse_stack(text)
