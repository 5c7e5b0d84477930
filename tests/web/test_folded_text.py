"""The raw text of a stack is folded away while rows show it, and stays what is saved, queued and linked: in both front
ends and both ways in which they draw nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .browser_kit.stack_node import (
    APP,
    INK,
    KNIGHT,
    LINOCUT,
    ROOT,
    add_node,
    new_workflow,
    press,
    reopen,
    rows_of,
    still,
    text_of,
    tracker,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TAGS = "<lora:styles/linocut:1> at dusk"
NODE = f"{APP}.graph.nodes[0]"


def shown(page: Page) -> Locator:
    """Texts that can be seen."""
    return page.locator("textarea:visible")


def size(page: Page) -> list[int]:
    """Of the node, once it no longer changes."""
    still(page.locator(".ws-stack"))
    found: list[int] = page.evaluate(f"[...{NODE}.size]")
    return found


def test_the_text_is_folded_away_and_edited_where_it_is_asked_for(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, KNIGHT]))
    expect(shown(page)).to_have_count(0)
    folded = size(page)
    editor.get_by_role("button", name="Edit as text").press("Enter")
    expect(shown(page)).to_be_focused()
    expect(shown(page)).to_have_value(json.dumps([INK, KNIGHT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(2)
    assert size(page)[1] > folded[1]
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(json.dumps([LINOCUT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(1)
    expect(shown(page)).to_be_focused()
    assert text_of(page) == json.dumps([LINOCUT]), "as it was typed"
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(json.dumps([INK, KNIGHT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(2)
    size(page)
    editor.get_by_role("button", name="Hide text").press("Enter")
    expect(shown(page)).to_have_count(0)
    expect(editor.get_by_role("button", name="Edit as text")).to_be_focused()
    assert size(page) == folded
    queued = page.evaluate(f"{APP}.graphToPrompt().then((prompt) => Object.values(prompt.output)[0].inputs)")
    assert queued == {"loras": json.dumps([INK, KNIGHT]), "math": "fused"}


def test_a_text_in_another_form_is_seen_at_once_and_folded_away_once_it_is_rows(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, TAGS)
    expect(shown(page)).to_have_value(TAGS)
    expect(editor.get_by_text("Written as tags or as a request.")).to_be_visible()
    expect(editor.get_by_role("button", name="text")).to_have_count(0)
    press(editor.get_by_role("button", name="Edit as rows"))
    expect(editor.locator(".ws-stack-row")).to_have_count(1)
    expect(shown(page)).to_have_count(0)
    assert rows_of(page) == [LINOCUT]


def test_what_is_wrong_with_a_text_is_told_while_it_is_written(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page)
    editor.get_by_role("button", name="Edit as text").press("Enter")
    expect(shown(page)).to_be_focused()
    page.keyboard.insert_text(json.dumps([INK])[:-1])
    expect(editor.get_by_text("Cannot be read: the JSON is broken")).to_be_visible()
    page.keyboard.type("]")
    expect(editor.locator(".ws-stack-row")).to_have_count(1)
    expect(editor.get_by_text("Cannot be read")).to_be_hidden()
    expect(shown(page)).to_be_focused()


def test_undo_redo_and_a_copy_fold_away_what_is_rows(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, TAGS)
    page.evaluate(tracker("capture"))
    press(editor.get_by_role("button", name="Edit as rows"))
    expect(shown(page)).to_have_count(0)
    before = size(page)
    page.evaluate(tracker("undo"))
    expect(shown(page)).to_have_value(TAGS)
    page.evaluate(tracker("redo"))
    expect(page.locator(".ws-stack-row")).to_have_count(1)
    expect(shown(page)).to_have_count(0)
    assert size(page) == before
    page.evaluate(f"{APP}.canvas.copyToClipboard({APP}.graph.nodes); {APP}.canvas.pasteFromClipboard()")
    expect(page.locator(".ws-stack-row")).to_have_count(2)
    expect(shown(page)).to_have_count(0)


def test_a_node_of_an_older_workflow_keeps_its_size(page: Page) -> None:
    """It was saved with its text in view."""
    from playwright.sync_api import expect

    add_node(page, json.dumps([INK]))
    page.evaluate(f"{NODE}.setSize([500, 480])")
    reopen(page)
    expect(page.locator(".ws-stack-row")).to_have_count(1)
    expect(shown(page)).to_have_count(0)
    assert size(page) == [500, 480]
    for _ in range(2):
        press(page.locator(".ws-stack").get_by_role("button", name="text"))
    assert size(page) == [500, 480]


def test_a_node_is_as_tall_as_what_it_shows(page: Page) -> None:
    """Before the host has placed the editor, it has no width, and all of its words stand below each other."""
    add_node(page, TAGS)
    tall = size(page)
    new_workflow(page)
    add_node(page, TAGS)
    assert size(page) == tall
    assert tall[1] <= page.evaluate(f"{NODE}.computeSize()[1]") + 34, "the other way of drawing adds its own margins"


def link(page: Page) -> None:
    page.evaluate(
        f"""() => {{
          const other = LiteGraph.createNode('StringSource')
          {APP}.graph.add(other)
          other.connect(0, {NODE}, {NODE}.inputs.findIndex((input) => input.name === 'loras'))
        }}"""
    )


def test_while_a_link_feeds_the_text_the_link_has_an_end(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    before = size(page)
    link(page)
    expect(editor.get_by_text("Comes from the linked node.")).to_be_visible()
    expect(editor.get_by_role("button", name="text")).to_have_count(0)
    ends = page.evaluate(f"{NODE}.inputs.map((input, slot) => [input.name, ...{NODE}.getInputPos(slot)])")
    places = {name: (x, y) for name, x, y in ends}
    assert len(set(places.values())) == len(places), "each at a place of its own"
    page.evaluate(f"{NODE}.disconnectInput({NODE}.inputs.findIndex((input) => input.name === 'loras'))")
    expect(editor.locator(".ws-stack-row")).to_be_visible()
    expect(shown(page)).to_have_count(0)
    assert size(page) == before


PROMOTE = f"""() => {{
  const {{ subgraph }} = {ROOT}.nodes[0]
  const [inner] = subgraph.nodes
  const input = inner.inputs.find((input) => input.name === 'loras')
  subgraph.addInput('loras', 'STRING').connect(input, inner)
}}"""


def test_the_text_is_seen_outside_of_a_subgraph_that_offers_it(page: Page) -> None:
    from playwright.sync_api import expect

    add_node(page, json.dumps([INK]))
    page.evaluate(f"void {APP}.graph.convertToSubgraph(new Set({APP}.graph.nodes))")
    page.evaluate(PROMOTE)
    expect(shown(page)).to_have_value(json.dumps([INK]))
    reopen(page)
    expect(shown(page)).to_have_value(json.dumps([INK]))


@pytest.mark.parametrize("booted", [True], indirect=True, ids=["nodes2"])
def test_a_linked_text_is_seen_outside_of_a_subgraph_also_once_the_link_is_gone(page: Page) -> None:
    """On its canvas, the older host folds every linked text away, and so it stays there."""
    from playwright.sync_api import expect

    add_node(page, json.dumps([INK]))
    link(page)
    expect(page.locator(".ws-stack").get_by_text("Comes from the linked node.")).to_be_visible()
    page.evaluate(f"void {APP}.graph.convertToSubgraph(new Set([{NODE}]))")
    expect(shown(page)).to_have_value(json.dumps([INK]))
    page.evaluate(f"{ROOT}.remove({ROOT}.nodes.find((node) => node.type === 'StringSource'))")
    still(page.locator("[data-node-id]"))
    expect(shown(page)).to_have_value(json.dumps([INK]))
    reopen(page)
    expect(shown(page)).to_have_value(json.dumps([INK]))


@pytest.mark.parametrize("type_name", ["WarmStackLoadLoraStack", "WarmStackLoraStack"])
def test_other_texts_of_the_node_stay(page: Page, type_name: str) -> None:
    add_node(page, json.dumps([INK]), type_name)
    hidden = page.evaluate(f"{NODE}.widgets.filter((widget) => widget.hidden).map((widget) => widget.name)")
    assert hidden == ["loras"]
