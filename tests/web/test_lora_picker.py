"""The list of LoRA names: web/lib/lora_picker.js on a page of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .browser_kit.component import ComponentPage

SHOW = """async () => {
  const { LoraPicker } = await import('/extensions/comfyui-warmstack/lib/lora_picker.js')
  const { PickerFilters } = await import('/extensions/comfyui-warmstack/lib/picker_filters.js')
  const t = (word) => word
  const rows = ['a', 'b'].map((name) => ({ name, category: '', baseModel: '', state: '' }))
  window.picked = []
  window.rows = rows
  const picker = new LoraPicker({
    t, rows: () => rows, fitting: () => new Set(), filters: new PickerFilters({ t }),
    onPick: (name) => picked.push(name), onPaste: () => false,
  })
  window.press = (key) => {
    const event = new KeyboardEvent('keydown', { bubbles: true, cancelable: true, ...key })
    return picker.input.dispatchEvent(event)
  }
  window.picker = picker
  document.body.replaceChildren(picker.field, picker.popup)
  picker.setValue('styles/ink.safetensors', '')
  picker.input.focus()
  picker.input.click()
}"""


@pytest.mark.parametrize("composing", [{"isComposing": True}, {"keyCode": 229}], ids=["standard", "older"])
def test_keys_of_an_input_method_are_not_ours(
    component: Callable[..., ComponentPage], composing: dict[str, object]
) -> None:
    """The Enter that confirms a word of Japanese chooses no LoRA, and the arrows go through its proposals."""
    page = component().page
    page.evaluate(SHOW)
    for key in ("ArrowDown", "Enter"):
        assert page.evaluate("(key) => press(key)", {"key": key, **composing}), "left to the input method"
    assert page.evaluate("picked") == []
    for key in ("ArrowDown", "Enter"):
        page.evaluate("(key) => press(key)", {"key": key})
    assert page.evaluate("picked") == ["a"]


def test_a_name_that_was_not_changed_is_no_choice(component: Callable[..., ComponentPage]) -> None:
    """It is shown without its ending, and without it another file may be meant."""
    page = component().page
    page.evaluate(SHOW)
    name = page.get_by_role("combobox", name="pickLora")
    name.press("Enter")
    assert page.evaluate("picked") == []
    name.fill("other")
    name.fill("styles/ink")
    name.press("Enter")
    name.fill("styles/ink")
    name.blur()
    assert page.evaluate("picked") == []
    assert name.input_value() == "styles/ink"
    name.fill("other")
    name.press("Enter")
    assert page.evaluate("picked") == ["other"]


def test_what_is_shown_without_the_focus_is_what_the_input_holds(component: Callable[..., ComponentPage]) -> None:
    from playwright.sync_api import expect

    page = component().page
    page.evaluate(SHOW)
    name, shown = page.get_by_role("combobox", name="pickLora"), page.locator(".ws-picker-cover")
    expect(shown).to_have_text("styles/ink")
    name.fill("sub\\o")
    page.get_by_role("combobox", name="category").focus()
    expect(shown).to_have_text("sub\\o")
    expect(shown.locator("b")).to_have_text("o")
    page.keyboard.press("Escape")
    name.blur()
    expect(shown).to_have_text("styles/ink")
    page.evaluate("picker.setValue('linocut.pt', '')")
    expect(shown).to_have_text("linocut.pt")
    name.click()
    page.get_by_role("option", name="b", exact=True).click()
    expect(shown).to_have_text("b")


def test_the_mark_stays_on_its_name_when_the_library_changes(component: Callable[..., ComponentPage]) -> None:
    page = component().page
    page.evaluate(SHOW)
    for key in ("ArrowDown", "ArrowDown"):
        page.evaluate("(key) => press(key)", {"key": key})
    page.evaluate("rows.unshift({ ...rows[0], name: '0' }); void picker.refresh()")
    assert page.locator("[aria-selected=true]").text_content() == "b"
    page.evaluate("press({ key: 'Enter' })")
    assert page.evaluate("picked") == ["b"]
    page.evaluate(SHOW)
    page.evaluate("press({ key: 'ArrowDown' }); rows.shift(); void picker.refresh()")
    assert page.locator("[aria-selected=true]").count() == 0, "the name that was marked is gone"
