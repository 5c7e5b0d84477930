"""The stack editor where a test needs a front end that has just started, or how a node is drawn makes no difference:
subgraphs, a finger on the screen, a library on its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .browser_kit.fake_backend import MIB, FakeBackend, Row
from .browser_kit.stack_node import (
    APP,
    INK,
    KNIGHT,
    LINOCUT,
    ROOT,
    SEND,
    add_node,
    add_row,
    box_of,
    new_workflow,
    press,
    reopen,
    rows_of,
    still,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .browser_kit.opened import OpenedStub


either_way = pytest.mark.parametrize("booted", [False], indirect=True, ids=[""])
"""In the front end that is up, with nodes drawn in one of the two ways."""


@pytest.mark.parametrize("nodes2", [False, True], ids=["litegraph", "nodes2"])
def test_inside_a_subgraph_what_is_edited_is_what_is_queued_and_saved(
    opened: Callable[..., OpenedStub], nodes2: bool
) -> None:
    """In a front end of its own: clearing a graph gives the older one an id of zeros, and by that id it looks for the
    tab of a subgraph among all workflows that the tests before have opened."""
    from playwright.sync_api import expect

    page = opened(settings={"Comfy.VueNodes.Enabled": nodes2}).page
    new_workflow(page)
    add_node(page, json.dumps([INK, KNIGHT]))
    enter = f"void {APP}.canvas.setGraph({ROOT}.nodes[0].subgraph)"
    page.evaluate(f"void {APP}.graph.convertToSubgraph(new Set({APP}.graph.nodes))")
    page.evaluate(enter)
    rows = page.locator(".ws-stack:visible .ws-stack-row")
    expect(rows).to_have_count(2)
    page.locator(".ws-stack:visible .ws-strength").first.press("ArrowUp")
    wanted = [{**INK, "strength_model": 0.85}, KNIGHT]
    queued = page.evaluate(f"{APP}.graphToPrompt().then((prompt) => Object.entries(prompt.output))")
    assert [json.loads(node["inputs"]["loras"]) for _, node in queued] == [wanted]
    assert ":" in queued[0][0], "the node is inside"
    reopen(page)
    page.evaluate(enter)
    expect(rows).to_have_count(2)
    expect(page.locator(".ws-stack:visible .ws-strength").first).to_have_value("0.85")
    press(page.locator(".ws-stack:visible").get_by_role("button", name="Remove").last)
    queued = page.evaluate(f"{APP}.graphToPrompt().then((prompt) => Object.values(prompt.output)[0].inputs.loras)")
    assert json.loads(queued) == wanted[:1]


def test_names_typed_before_the_library_has_arrived_are_found(opened: Callable[..., OpenedStub]) -> None:
    from playwright.sync_api import expect

    page = opened().page
    held: list[Any] = []
    page.route("**/warmstack/v1/adapters*", lambda route: held.append(route))
    new_workflow(page)
    with page.expect_event("request", lambda request: "/adapters" in request.url):
        editor = add_node(page)
    name = add_row(editor)
    with page.expect_event("requestfinished", lambda request: "/adapters" in request.url):
        name.fill("linocut")
        expect(editor.get_by_role("option")).to_have_count(0)
        held[0].continue_()
    press(editor.get_by_role("option", name="linocut"))
    assert rows_of(page) == [LINOCUT]


def drag_finger(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From the touch of a screen: the browser decides whether it scrolls the page or tells us of it."""
    session = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    send("touchStart", start)
    for step in range(1, 7):
        send("touchMove", tuple(a + (b - a) * step / 6 for a, b in zip(start, end, strict=True)))  # type: ignore[arg-type]
    send("touchEnd")


@pytest.mark.parametrize("nodes2", [False, True], ids=["litegraph", "nodes2"])
def test_a_finger_changes_a_strength_and_moves_a_row(opened: Callable[..., OpenedStub], nodes2: bool) -> None:
    from playwright.sync_api import expect

    page = opened(settings={"Comfy.VueNodes.Enabled": nodes2}, touch=True).page
    new_workflow(page)
    editor = add_node(page, json.dumps([INK, KNIGHT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(2)
    box = box_of(editor.locator(".ws-strength").first)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag_finger(page, (x, y), (x + 33, y + 2))
    expect(editor.locator(".ws-strength").first).to_have_value("1.05")
    assert rows_of(page) == [{**INK, "strength_model": 1.05}, KNIGHT]
    grip, goal = box_of(editor.locator(".ws-grip").first), box_of(editor.locator(".ws-stack-row").last)
    drag_finger(page, (grip["x"] + 5, grip["y"] + 12), (grip["x"] + 5, goal["y"] + goal["height"] * 0.8))
    assert [row["name"] for row in rows_of(page)] == [KNIGHT["name"], INK["name"]]
    assert page.evaluate(f"{APP}.graph.nodes[0].pos[0]") == 420, "the node stays where it was"


@either_way
def test_a_file_that_comes_is_offered_once_the_host_is_told_to_look(editing: FakeBackend, page: Page) -> None:
    from playwright.sync_api import expect

    editor = add_node(page)
    name = add_row(editor)
    name.fill("new")
    expect(editor.get_by_text("Nothing matches")).to_be_visible()
    editing.rows["styles/new_one.safetensors"] = Row("styles/new_one.safetensors", MIB)
    page.evaluate(f"void {APP}.extensionManager.command.execute('Comfy.RefreshNodeDefinitions')")
    expect(editor.get_by_role("option", name="new_one")).to_be_visible()


@either_way
def test_a_row_is_asked_about_again_when_the_server_did_not_answer(page: Page) -> None:
    from playwright.sync_api import expect

    page.route("**/warmstack/v1/plan", lambda route: route.abort("connectionrefused"), times=2)
    editor = add_node(page, json.dumps([INK]))
    expect(editor.locator(".ws-stack-row")).to_have_attribute("data-state", "ready")


COUNT_WATCHERS = """async () => {
  const { StatusStore } = await import('/extensions/comfyui-warmstack/lib/store.js')
  const { watch } = StatusStore.prototype
  window.watching = 0
  StatusStore.prototype.watch = function (watcher) {
    window.watching += 1
    const leave = watch.call(this, watcher)
    return () => {
      window.watching -= 1
      leave()
    }
  }
}"""
UNDO = f"(saved) => {APP}.loadGraphData(JSON.parse(saved), false, false).then(() => {{}})"


def test_editors_of_nodes_that_are_gone_watch_nothing(opened: Callable[..., OpenedStub], backend: FakeBackend) -> None:
    """A copy makes a node that no graph ever holds; of one in a subgraph that is replaced, nobody is told."""
    page = opened().page
    new_workflow(page)
    page.evaluate(COUNT_WATCHERS)
    add_node(page, json.dumps([INK]))
    alone = page.evaluate("watching")
    page.evaluate(f"for (let copy = 0; copy < 9; copy += 1) {APP}.canvas.copyToClipboard({APP}.graph.nodes)")
    page.evaluate(f"void {APP}.graph.convertToSubgraph(new Set({APP}.graph.nodes))")
    saved = page.evaluate(f"JSON.stringify({ROOT}.serialize())")
    for _ in range(9):
        page.evaluate(UNDO, saved)
    assert page.evaluate("watching") > alone
    memory = page.context.new_cdp_session(page)
    for _ in range(99):
        memory.send("HeapProfiler.collectGarbage")
        backend.revision += 1
        page.evaluate(SEND, backend.status())
        if page.evaluate("watching") == alone:
            break
    assert page.evaluate("watching") == alone


@pytest.mark.parametrize("booted", [False], indirect=True, ids=["litegraph"])
def test_a_node_out_of_view_keeps_its_size(page: Page) -> None:
    """The host hides what is out of view, and a size that follows it would be a change of the workflow."""
    from playwright.sync_api import expect

    editor = add_node(page, json.dumps([INK, KNIGHT, LINOCUT, INK, KNIGHT]))
    expect(editor.locator(".ws-stack-row")).to_have_count(5)
    still(editor)
    size = f"[...{APP}.graph.nodes[0].size]"
    tall = page.evaluate(size)
    page.evaluate(f"{APP}.canvas.ds.offset[0] = 9000; {APP}.canvas.setDirty(true, true)")
    expect(editor).to_be_hidden()
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate(size) == tall


@either_way
def test_a_category_decides_between_files_of_one_name(editing: FakeBackend, page: Page) -> None:
    from playwright.sync_api import expect

    editing.rows["characters/linocut.safetensors"] = Row("characters/linocut.safetensors", MIB)
    row = {**LINOCUT, "name": "linocut"}
    stack = json.dumps([row, {**row, "category": "characters"}])
    rows = add_node(page, stack, "WarmStackLoraStack").locator(".ws-stack-row")
    expect(rows.nth(0)).to_have_attribute("data-state", "ambiguous")
    expect(rows.nth(1)).to_have_attribute("data-state", "cold")
    page.evaluate(
        f"""() => {{
          const category = {APP}.graph.nodes[0].widgets.find((widget) => widget.name === 'category')
          category.value = 'styles'
          category.callback?.(category.value)
        }}"""
    )
    expect(rows.nth(0)).to_have_attribute("data-state", "ready")
    expect(rows.nth(1)).to_have_attribute("data-state", "cold")
