"""The stack editor on a node, in both front ends and both ways in which they draw nodes: it edits the text that an API
client writes, and nothing else; by mouse, and by keyboard alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import FakeBackend, Row
from .browser_kit.stack_node import (
    APP,
    INK,
    KNIGHT,
    LINOCUT,
    SEND,
    add_node,
    add_row,
    applied,
    box_of,
    finish_run,
    paste,
    press,
    reopen,
    rows_of,
    still,
    text_of,
    tracker,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def test_a_stack_is_built_by_hand(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page)
    name = add_row(editor)
    assert text_of(page) == "", "a row without a name is nowhere but on the screen"
    name.fill("sdxl ink")
    press(editor.get_by_role("option", name="ink_wash_v3"))
    strengths = editor.locator(".ws-strength")
    strengths.nth(0).fill("0,8")
    strengths.nth(0).press("Tab")
    strengths.nth(1).fill("0.5")
    strengths.nth(1).press("Enter")
    strengths.nth(1).blur()
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "ready")
    assert rows_of(page) == [INK]
    press(editor.get_by_role("button", name="Duplicate"))
    name = editor.get_by_role("combobox", name="Choose a LoRA").nth(1)
    name.fill("aurora")
    name.press("ArrowDown")
    name.press("Enter")
    assert [row["name"] for row in rows_of(page)] == [INK["name"], KNIGHT["name"]]
    press(editor.get_by_role("button", name="Move up").nth(1))
    editor.get_by_role("checkbox").nth(0).uncheck()
    assert [(row["name"], row.get("on", True)) for row in rows_of(page)] == [
        (KNIGHT["name"], False),
        (INK["name"], True),
    ]
    press(editor.get_by_role("button", name="Remove").nth(0))
    assert rows_of(page) == [INK]


def test_what_is_edited_is_what_is_queued_and_saved(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, KNIGHT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(2)
    editor.locator(".ws-strength").first.press("ArrowUp")
    wanted = [{**INK, "strength_model": 0.85}, KNIGHT]
    assert rows_of(page) == wanted
    queued = page.evaluate(f"{APP}.graphToPrompt().then((prompt) => Object.values(prompt.output)[0].inputs)")
    assert json.loads(queued["loras"]) == wanted
    assert set(queued) == {"loras", "math"}
    saved = page.evaluate(f"{APP}.graph.serialize()")
    assert len(saved["nodes"][0]["widgets_values"]) == 2
    page.evaluate(f"(saved) => {{ {APP}.graph.clear(); return {APP}.loadGraphData(saved) }}", saved)
    expect(page.locator(".ws-stack .ws-stack-row")).to_have_count(2)
    expect(page.locator(".ws-strength").first).to_have_value("0.85")
    assert rows_of(page) == wanted


def test_tags_and_requests_stay_as_written_until_asked(page: Page) -> None:
    from playwright.sync_api import expect

    tags = "a lighthouse <lora:styles/ink_wash_v3:0.8:0.5> at dusk"
    editor = add_node(page, tags)
    expect(editor.get_by_text("Written as tags or as a request.")).to_be_visible()
    assert text_of(page) == tags
    press(editor.get_by_role("button", name="Edit as rows"))
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "ready")
    assert rows_of(page) == [INK], "by the file's full name: a short one may need its category"


@pytest.mark.parametrize(
    "pasted",
    [
        "<lora:styles/linocut:1> <lora:styles/ink_wash_v3:0.8:0.5>",
        '{"lora": {"models": [{"name": "styles/linocut"}, {"name": "styles/ink_wash_v3", "weight": 0.8}]}}',
    ],
    ids=["tags", "request"],
)
def test_a_stack_pasted_where_a_name_goes_becomes_rows(page: Page, pasted: str) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([KNIGHT]))
    paste(add_row(editor), pasted)
    expect(editor.locator(".ws-stack-row[data-state=ready]")).to_have_count(3)
    assert [(row["name"], row["strength_model"]) for row in rows_of(page)] == [
        (KNIGHT["name"], 1),
        (LINOCUT["name"], 1),
        (INK["name"], 0.8),
    ]


def test_rows_pasted_from_another_node_stay_as_they_are(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([KNIGHT]))
    pasted = [{**INK, "on": False}, {**LINOCUT, "strength_model": 0, "strength_clip": 0}]
    paste(add_row(editor), json.dumps(pasted))
    expect(editor.locator(".ws-stack-row")).to_have_count(3)
    assert rows_of(page) == [KNIGHT, *pasted]


def test_the_list_is_narrowed_to_a_category_and_a_base_model(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    finish_run(page, applied(INK["name"], 1, "sdxl"))
    name = add_row(editor)
    name.fill("o")
    base = editor.get_by_role("combobox", name="Base model")
    base.focus()
    base.select_option("flux")
    options = editor.get_by_role("listbox").get_by_role("option").locator("b")
    expect(options).to_have_text(["kodak_portra_flux", "soft_volume_flux"])
    assert rows_of(page) == [INK], "what is typed is no choice while the filters are in use"
    editor.get_by_role("combobox", name="Category").select_option("styles")
    expect(editor.get_by_text("Nothing matches")).to_be_visible()
    base.select_option(label="Fits this model")
    expect(options).to_have_text(["gouache_night", "ink_wash_v3", "linocut"])
    expect(editor.get_by_role("listbox").get_by_role("option").first).to_have_attribute("data-fit", "good")
    name.press("Escape")
    expect(name).to_have_value("")
    press(name)
    expect(options).to_have_text(["gouache_night", "ink_wash_v3", "linocut"])
    press(editor.get_by_role("option", name="linocut"))
    assert [row["name"] for row in rows_of(page)] == [INK["name"], LINOCUT["name"]]


def test_while_a_link_feeds_the_input_there_is_nothing_to_edit(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    add = editor.get_by_role("button", name="Add LoRA")
    expect(add).to_be_visible()
    page.evaluate(
        f"""() => {{
          const other = LiteGraph.createNode('StringSource')
          {APP}.graph.add(other)
          const [node] = {APP}.graph.nodes
          other.connect(0, node, node.inputs.findIndex((input) => input.name === 'loras'))
        }}"""
    )
    expect(editor.get_by_text("Comes from the linked node.")).to_be_visible()
    expect(add).to_be_hidden()
    expect(editor.locator(".ws-stack-row")).to_be_hidden()
    reopen(page)
    expect(editor.get_by_text("Comes from the linked node.")).to_be_visible()
    expect(add).to_be_hidden()
    page.evaluate(
        f"""() => {{
          const node = {APP}.graph.nodes.find((one) => one.type === 'WarmStackLoadLoraStack')
          node.disconnectInput(node.inputs.findIndex((input) => input.name === 'loras'))
        }}"""
    )
    expect(add).to_be_visible()
    expect(editor.locator(".ws-stack-row")).to_be_visible()


def test_a_missing_file_offers_what_is_near(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([{**INK, "name": "styles/ink_wash"}]))
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "missing")
    press(editor.get_by_role("button", name=INK["name"], exact=True))
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "ready")
    assert rows_of(page) == [INK]


def test_a_row_shows_what_is_in_memory_now(page: Page, editing: FakeBackend) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "ready")
    editing.set(INK["name"], state="cold")
    page.evaluate(SEND, editing.status())
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "cold")


def test_a_row_that_the_status_has_no_room_for_is_still_in_memory(page: Page, editing: FakeBackend) -> None:
    from playwright.sync_api import expect

    names = [f"a/{index:03}.safetensors" for index in range(250)]
    editing.rows = {name: Row(name, 1, "ready") for name in names}
    page.evaluate(SEND, editing.status())
    rows = add_node(page, json.dumps([{**INK, "name": names[-1]}])).locator(".ws-stack-row")
    expect(rows).to_have_attribute("data-state", "ready")


def test_a_name_in_deep_folders_is_told_by_its_end(page: Page) -> None:
    """A library of folders has many names of one beginning, and a node is narrow."""
    from playwright.sync_api import expect

    deep = [{**INK, "name": f"lib/animals/00/very/deep/lora_0006{index}.safetensors"} for index in range(2)]
    editor = add_node(page, json.dumps(deep))
    is_whole = "(box) => box.scrollWidth <= box.clientWidth"
    name, folder = editor.get_by_text("lora_00061"), editor.locator(".ws-picker-cover > .ws-dim").last
    expect(name).to_be_visible()
    assert (name.evaluate(is_whole), folder.evaluate(is_whole)) == (True, False)
    node = f"{APP}.graph.nodes[0]"
    page.evaluate(f"{node}.setSize([700, {node}.size[1]]); {APP}.canvas.setDirty(true, true)")
    still(editor)
    assert (name.evaluate(is_whole), folder.evaluate(is_whole)) == (True, True)
    input = editor.get_by_role("combobox", name="Choose a LoRA").last
    press(input)
    expect(name).to_be_hidden()
    expect(input).to_have_value("lib/animals/00/very/deep/lora_00061")
    expect(input).to_have_attribute("title", deep[1]["name"])
    input.blur()
    expect(name).to_be_visible()
    assert rows_of(page) == deep


def test_a_narrow_node_shows_every_tool(page: Page) -> None:
    editor = add_node(page, json.dumps([INK]))
    page.evaluate(f"{APP}.graph.nodes[0].setSize([300, 300]); {APP}.canvas.setDirty(true, true)")
    still(editor)
    assert page.evaluate(f"{APP}.graph.nodes[0].size[0]") == 300
    assert editor.evaluate("(box) => [box.scrollWidth - box.clientWidth, box.offsetWidth < 300]") == [0, True]


def test_in_high_contrast_the_editor_has_the_background_of_its_colours(page: Page) -> None:
    """The browser forces black or white on its words, and the canvas below stays as it is."""
    editor = add_node(page, json.dumps([INK]))
    background = "(box) => getComputedStyle(box).backgroundColor"
    assert editor.evaluate(background) == "rgba(0, 0, 0, 0)"
    page.emulate_media(forced_colors="active")
    assert editor.evaluate(background) == "rgb(255, 255, 255)"
    page.emulate_media(forced_colors="none")


def test_undo_and_paste_carry_the_rows(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    page.evaluate(tracker("capture"))
    press(editor.get_by_role("button", name="Duplicate"))
    assert rows_of(page) == [INK, INK]
    page.evaluate(tracker("undo"))
    expect(page.locator(".ws-stack-row")).to_have_count(1)
    assert rows_of(page) == [INK]
    page.evaluate(f"{APP}.canvas.copyToClipboard({APP}.graph.nodes); {APP}.canvas.pasteFromClipboard()")
    expect(page.locator(".ws-stack")).to_have_count(2)
    expect(page.locator(".ws-stack-row")).to_have_count(2)
    press(page.locator(".ws-stack").last.get_by_role("button", name="Remove"))
    assert rows_of(page) == [INK], "two nodes, two texts"


def test_axe_finds_nothing_serious_on_the_node(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, {**KNIGHT, "name": "styles/ink_wash"}]))
    expect(editor.locator("[data-state=missing]")).to_have_count(1)
    add_row(editor).fill("st")
    from .browser_kit.axe import serious_violations

    assert serious_violations(page, ".ws-stack") == []


def test_a_sideways_drag_changes_a_strength_in_steps(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    box = box_of(editor.locator(".ws-strength").first)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 33, y, steps=4)
    expect(editor.locator(".ws-strength").first).to_have_value("0.55")
    assert rows_of(page) == [INK], "written once, at the end: one step for undo"
    page.mouse.up()
    assert rows_of(page) == [{**INK, "strength_model": 0.55}]
    assert page.evaluate(f"{APP}.graph.nodes[0].pos[0]") == 420, "the node stays where it was"


def drag_row(page: Page, row: Locator, onto: Locator, share: float) -> None:
    """Drags the grip of `row` to `share` of the height of `onto`, and holds it there."""
    grip, goal = box_of(row.locator(".ws-grip")), box_of(onto)
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(goal["x"] + 20, goal["y"] + goal["height"] * share, steps=6)


def test_a_row_is_dragged_to_its_place(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, KNIGHT, LINOCUT]))
    rows = editor.locator(".ws-stack-row")
    expect(rows).to_have_count(3)
    drag_row(page, rows.nth(0), rows.nth(2), 0.8)
    expect(rows.nth(2)).to_have_attribute("data-drop", "after")
    assert rows_of(page) == [INK, KNIGHT, LINOCUT], "written once, at the end: one step for undo"
    page.mouse.up()
    assert rows_of(page) == [KNIGHT, LINOCUT, INK]
    drag_row(page, rows.nth(1), rows.nth(0), 0.2)
    page.mouse.up()
    assert rows_of(page) == [LINOCUT, KNIGHT, INK]
    drag_row(page, rows.nth(1), rows.nth(1), 0.6)
    page.mouse.up()
    assert rows_of(page) == [LINOCUT, KNIGHT, INK]
    expect(editor.locator("[data-drop]")).to_have_count(0)
    assert page.evaluate(f"{APP}.graph.nodes[0].pos[0]") == 420, "the node stays where it was"


def test_the_node_shows_what_its_last_run_told(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, {**KNIGHT, "name": "characters/aurora_knight"}]))
    expect(editor.get_by_text("Last run")).to_be_hidden()
    expect(editor.locator("[data-state=ready]")).to_have_count(2)
    warning = "'aurora_knight' looks made for sd15"
    ran = [applied(INK["name"], 0.984, "sdxl"), applied(KNIGHT["name"], 0.02, "sd15", warning)]
    finish_run(page, *ran, notes=("styles/linocut: skipped, both strengths are 0",))
    lines = editor.get_by_role("list", name="Last run").get_by_role("listitem")
    expect(lines).to_have_count(3)
    expect(lines.nth(0)).to_have_text("ink_wash_v3: 98% matched, from memory")
    expect(lines.nth(1)).to_contain_text(warning)
    expect(lines.nth(2)).to_contain_text("skipped")
    expect(editor.locator(".ws-stack-row").nth(0)).not_to_have_attribute("data-fit", "bad")
    expect(editor.locator(".ws-stack-row").nth(1)).to_have_attribute("data-fit", "bad")
    finish_run(page, ran[0])
    expect(lines).to_have_count(1)
    expect(editor.locator(".ws-stack-row[data-fit=bad]")).to_have_count(0)


def test_what_does_not_fit_the_model_comes_last_in_the_list(page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK]))
    finish_run(page, applied(INK["name"], 1, "sdxl"))
    name = add_row(editor)
    name.fill("o")
    options = editor.get_by_role("listbox").get_by_role("option")
    expect(options.last).to_have_attribute("data-fit", "bad")
    bases = options.evaluate_all("(all) => all.map((o) => [o.lastElementChild.textContent, o.dataset.fit === 'bad'])")
    assert {fit: {base for base, bad in bases if bad is fit} for fit in (False, True)} == {
        False: {"sdxl"},
        True: {"flux", "sd15"},
    }
    assert [bad for _, bad in bases] == sorted(bad for _, bad in bases)
    name.fill("kodak flux")
    expect(options).to_have_count(1)
    press(options.first)
    expect(editor.locator(".ws-stack-row").last).to_have_attribute("data-fit", "bad")
    assert len(rows_of(page)) == 2, "a hint, not a ban: metadata can be wrong"


def test_delete_in_the_editor_leaves_the_node(page: Page) -> None:
    editor = add_node(page, json.dumps([INK]))
    page.evaluate(f"{APP}.canvas.select({APP}.graph.nodes[0])")
    editor.get_by_role("button", name="Duplicate").focus()
    page.keyboard.press("Delete")
    assert page.evaluate(f"{APP}.graph.nodes.length") == 1


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
