"""The stack editor by keyboard alone, in both front ends and both ways in which they draw nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .browser_kit.stack_node import INK, KNIGHT, LINOCUT, add_node, paste, press, rows_of

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_the_keyboard_alone_reaches_the_filters_and_chooses(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page)
    editor.get_by_role("button", name="Add LoRA").focus()
    for key in ("Enter", "ArrowDown", "Tab", "s"):
        page.keyboard.press(key)
    expect(editor.get_by_role("combobox", name="Category")).to_be_focused()
    expect(editor.get_by_role("combobox", name="Category")).to_have_value("styles")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("lino")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert rows_of(page) == [LINOCUT]


def test_the_focus_stays_in_the_editor_when_what_had_it_goes(page: Page) -> None:
    """Else the next key is the host's, and Delete removes nodes."""
    from playwright.sync_api import expect

    near = {**INK, "name": "styles/ink_wash"}
    tags = f"<lora:styles/linocut:1> <lora:{near['name']}:0.8:0.5> <lora:characters/aurora_knight:1>"
    editor = add_node(page, tags)
    rows = editor.locator(".ws-stack-row")
    editor.get_by_role("button", name="Edit as rows").press("Enter")
    expect(rows).to_have_count(3)
    expect(rows.nth(0).get_by_role("checkbox")).to_be_focused()
    rows.nth(1).get_by_role("button", name=INK["name"], exact=True).press("Enter")
    expect(rows.nth(1).get_by_role("checkbox")).to_be_focused()
    remove = editor.get_by_role("button", name="Remove")
    remove.nth(1).press("Enter")
    expect(remove).to_have_count(2)
    expect(remove.nth(1)).to_be_focused()
    remove.nth(1).press("Enter")
    expect(remove).to_have_count(1)
    expect(editor.get_by_role("button", name="Add LoRA")).to_be_focused()
    paste(rows.nth(0).get_by_role("combobox", name="Choose a LoRA"), json.dumps([INK, KNIGHT]))
    expect(rows).to_have_count(2)
    expect(rows.nth(0).get_by_role("checkbox")).to_be_focused()


def test_alt_with_the_arrows_moves_a_row_from_wherever_it_has_the_focus(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, KNIGHT]))
    names = editor.get_by_role("combobox", name="Choose a LoRA")
    expect(names).to_have_count(2)
    press(names.nth(0))
    expect(editor.get_by_role("listbox")).to_be_visible()
    names.nth(0).press("Alt+ArrowDown")
    assert rows_of(page) == [KNIGHT, INK]
    expect(names.nth(1)).to_be_focused()
    expect(editor.get_by_role("listbox")).to_be_hidden()
    page.keyboard.press("Alt+ArrowUp")
    assert rows_of(page) == [INK, KNIGHT]
    expect(names.nth(0)).to_be_focused()
    names.nth(1).fill("styles/linocut.safetensors")
    names.nth(1).press("Alt+ArrowUp")
    assert rows_of(page) == [LINOCUT, INK]
    editor.locator(".ws-strength").nth(0).press("Alt+ArrowDown")
    assert rows_of(page) == [INK, LINOCUT]
