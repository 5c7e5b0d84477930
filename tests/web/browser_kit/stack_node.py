"""The node with the stack editor, as the tests put it into a graph and read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Locator, Page

APP = "window.comfyAPI.app.app"
ROOT = f"({APP}.rootGraph ?? {APP}.graph)"
"""The graph outside of all subgraphs."""
SEND = "(s) => window.comfyAPI.api.api.dispatchEvent(new CustomEvent('warmstack.status', { detail: s }))"
INK = {"name": "styles/ink_wash_v3.safetensors", "strength_model": 0.8, "strength_clip": 0.5}
KNIGHT = {"name": "characters/aurora_knight.safetensors", "strength_model": 1, "strength_clip": 1}
LINOCUT = {"name": "styles/linocut.safetensors", "strength_model": 1, "strength_clip": 1}

_NEW_WORKFLOW = f"""async () => {{
  const nothing = {{ nodes: [], links: [], groups: [], config: {{}}, extra: {{}} }}
  const empty = {{ id: crypto.randomUUID(), last_node_id: 0, last_link_id: 0, version: 0.4, ...nothing }}
  await {APP}.loadGraphData(empty, true, false)
}}"""
_AT_ITS_ADDRESS = f"() => location.hash === `#${{{ROOT}.id}}`"

_STILL = """(element) => new Promise((done) => {
  let [before, frames] = ['', 0]
  const look = () => {
    const boxes = [element, ...element.querySelectorAll('*')].map((one) => one.getBoundingClientRect())
    const now = boxes.map(({ x, y, width, height }) => [x, y, width, height].join()).join(' ')
    frames = now === before ? frames + 1 : 0
    before = now
    if (frames === 5) done()
    else requestAnimationFrame(look)
  }
  look()
})"""


_TRACKER = f"{APP}.extensionManager.workflow.activeWorkflow.changeTracker"


def tracker(step: str) -> str:
    """A step of the host's undo history: capture (a state to come back to), undo or redo."""
    call = f"({_TRACKER}.captureCanvasState ?? {_TRACKER}.checkState)" if step == "capture" else f"{_TRACKER}.{step}"
    return f"{call}.call({_TRACKER})"


def new_workflow(page: Page) -> None:
    """An empty workflow in a tab of its own: a graph that is only cleared keeps the tab, the history and the address of
    the one before, and takes an id that none of them has."""
    page.evaluate(_NEW_WORKFLOW)
    page.wait_for_function(_AT_ITS_ADDRESS)


def reopen(page: Page) -> None:
    """The workflow as it would be saved, opened again."""
    saved = page.evaluate(f"JSON.stringify({ROOT}.serialize())")
    page.evaluate(f"(saved) => {APP}.loadGraphData(JSON.parse(saved)).then(() => {{}})", saved)


def add_node(page: Page, text: str = "", type_name: str = "WarmStackLoadLoraStack") -> Locator:
    page.evaluate(
        f"""([text, type]) => {{
          const node = LiteGraph.createNode(type)
          node.pos = [420, 120]
          {APP}.graph.add(node)
          node.widgets.find((widget) => widget.name === 'loras').value = text
          node.onConfigure?.({{}})
          {APP}.canvas.ds.reset()
        }}""",
        [text, type_name],
    )
    editor = page.locator(".ws-stack")
    still(editor)
    return editor


def still(locator: Locator) -> None:
    """Waits until nothing in it moves from one frame to the next: the node and its rows take each other's new size in
    turn, over several frames, and of a click only the press is sure to meet what it was aimed at."""
    locator.wait_for()
    locator.evaluate(_STILL)


def press(locator: Locator) -> None:
    """A click that is not lost because its release went to another element."""
    still(locator)
    locator.click()


def add_row(editor: Locator) -> Locator:
    """Where the name goes of a row that this adds: before there is one, the last name is another row's."""
    from playwright.sync_api import expect

    rows = editor.locator(".ws-stack-row")
    count = rows.count()
    press(editor.get_by_role("button", name="Add LoRA"))
    expect(rows).to_have_count(count + 1)
    return rows.nth(count).get_by_role("combobox", name="Choose a LoRA")


def box_of(locator: Locator) -> FloatRect:
    """Where it stands once it no longer moves, if nothing is in front of it."""
    still(locator)
    locator.click(trial=True)
    box = locator.bounding_box()
    assert box is not None
    return box


def text_of(page: Page) -> str:
    text: str = page.evaluate(f"{APP}.graph.nodes[0].widgets.find((widget) => widget.name === 'loras').value")
    return text


def rows_of(page: Page) -> list[dict[str, Any]]:
    text = text_of(page)
    rows: list[dict[str, Any]] = json.loads(text) if text else []
    return rows


def paste(input: Locator, text: str) -> None:
    input.evaluate(
        """(input, text) => {
          const data = new DataTransfer()
          data.setData('text/plain', text)
          input.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }))
        }""",
        text,
    )


def finish_run(page: Page, *rows: dict[str, object], notes: tuple[str, ...] = ()) -> None:
    """As the host tells the front end of a node that has run."""
    report = json.dumps({"rows": rows, "notes": notes})
    page.evaluate(
        f"""(report) => {{
          const id = String({APP}.graph.nodes.find((node) => node.type === 'WarmStackLoadLoraStack').id)
          const detail = {{ node: id, display_node: id, prompt_id: 'p', output: {{ warmstack_report: [report] }} }}
          window.comfyAPI.api.api.dispatchEvent(new CustomEvent('executed', {{ detail }}))
        }}""",
        report,
    )


def applied(name: str, share: float, base_model: str, warning: str = "") -> dict[str, object]:
    return {"name": name, "share": share, "base_model": base_model, "outcome": "hit", "warning": warning}
