"""The panel in a real ComfyUI, with the real prefetcher behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hostkit.graphs import sd15_graph
from hostkit.models import lora_path
from hostkit.server import HostServer

from .browser_kit.real_host import NEEDS_COMFYUI, make_base, running
from .browser_kit.stack_node import APP, add_row, press, still

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

    from .browser_kit.opened import Opened

pytestmark = [
    *NEEDS_COMFYUI,
    pytest.mark.timeout(400),  # the first test starts ComfyUI, which lists 10,000 files
]

NAMES = [f"styles/ink{index}.safetensors" for index in range(6)]
LIBRARY = [f"zz_library/{index % 40:02}/lora_{index:05}.safetensors" for index in range(10_000 - len(NAMES))]
"""Behind the others in the alphabet."""

LOAD = f"async (graph) => {{ await {APP}.loadApiJson(graph, 'mine') }}"
RUN = f"async () => {{ await {APP}.queuePrompt(0) }}"
TEXT = f"""() => {APP}.graph.nodes.find((node) => node.type === 'WarmStackLoadLoraStack')
  .widgets.find((widget) => widget.name === 'loras').value"""
KEPT = """() => [localStorage, sessionStorage].flatMap((kept) => Object.values(kept))
  .some((text) => text.includes('ink2.safetensors') && text.includes('0.55'))"""
"""The front end keeps a change some time after it was made, and a reload before that is one without it."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    base = make_base(tmp_path_factory.mktemp("comfyui"), NAMES)
    for name in LIBRARY:
        path = lora_path(base, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(lora_path(base, NAMES[0]))
    with running(base) as server:
        yield server


@pytest.fixture
def view(view: Opened) -> Opened:
    view.open_panel()
    return view


def test_follows_a_queue_from_the_first_chip_to_the_last(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    graphs = [
        sd15_graph([(name, 1.0, 1.0)], loader="stack", hold_s=1.5, tag=f"{index}")
        for index, name in enumerate(NAMES[:3])
    ]
    queued = [host.client.queue(graph) for graph in graphs]
    expect(view.panel.locator(".ws-running")).to_have_count(1)
    expect(view.panel.locator(".ws-job")).not_to_have_count(1)
    expect(view.panel.get_by_text("The next job is ready.")).to_be_visible()
    host.client.wait(queued)
    expect(view.panel.get_by_text("The queue is empty.")).to_be_visible()
    expect(view.row(NAMES[0])).to_have_attribute("data-state", "ready")
    status = host.client.get("/warmstack/v1/status")["prefetch"]
    assert status["hits"] + status["joins"] + status["misses"] == len(queued)
    counts = [status[kind] for kind in ("hits", "joins", "misses")]
    share = int(100 * counts[0] / sum(counts))
    told = f"{counts[0]} hit ({share}%) · {counts[1]} joined · {counts[2]} missed"
    expect(view.panel.get_by_text(told)).to_be_visible()


def test_warm_pin_and_evict_change_the_server(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    name = NAMES[5]
    # A row moves with its state: alone in the table, it stays under the pointer.
    view.panel.get_by_role("searchbox").fill("ink5")
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("1 of 10,000")
    row = view.row(name)
    press(row.get_by_role("button", name="Warm"))
    expect(row).to_have_attribute("data-state", "ready")
    press(row.get_by_role("button", name="Pin"))
    expect(row.get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "true")
    held = {adapter["name"]: adapter for adapter in host.client.get("/warmstack/v1/status")["adapters"]}
    assert held[name]["pinned"] is True
    press(row.get_by_role("button", name="Pin"))
    expect(row.get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "false")
    press(row.get_by_role("button", name="Evict"))
    expect(row).not_to_have_attribute("data-state", "ready")
    assert name not in {adapter["name"] for adapter in host.client.get("/warmstack/v1/status")["adapters"]}
    view.panel.get_by_role("searchbox").fill("")


def test_the_node_shows_its_report_after_running(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    # On a slow machine the prefetcher is done before the checkpoint is, and the file no longer read from disk.
    host.client.post("/warmstack/v1/settings", {"enabled": False})
    try:
        graph = sd15_graph([(NAMES[3], 0.5, 0.5)], loader="stack", tag="report")
        view.page.evaluate(LOAD, graph)
        view.page.evaluate(RUN)
        lines = view.page.get_by_role("list", name="Last run").get_by_role("listitem")
        expect(lines).to_have_text("ink3: 100% matched, read from disk", timeout=30_000)
    finally:
        host.client.post("/warmstack/v1/settings", {"enabled": True})


def test_a_reload_shows_what_the_server_still_holds(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    host.client.post("/warmstack/v1/pin", {"names": [NAMES[4]], "pinned": True})
    host.client.post("/warmstack/v1/settings", {"enabled": False})
    view.boot()
    view.open_panel()
    expect(view.panel.get_by_role("switch", name="Prefetch")).not_to_be_checked()
    expect(view.row(NAMES[4]).get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "true")
    view.panel.get_by_role("switch", name="Prefetch").click()
    expect(view.panel.get_by_role("switch", name="Prefetch")).to_be_checked()
    assert host.client.get("/warmstack/v1/status")["prefetch"]["enabled"] is True


@pytest.fixture
def persisting(host: HostServer) -> Iterator[None]:
    """The front end keeps the open workflow over a reload."""
    host.client.post("/settings", {"Comfy.Workflow.Persist": True})
    yield
    host.client.post("/settings", {"Comfy.Workflow.Persist": False})


def test_what_is_edited_is_what_runs_and_a_reload_keeps_it(host: HostServer, persisting: None, view: Opened) -> None:
    from playwright.sync_api import expect

    wanted = [
        {"name": NAMES[1], "strength_model": 0.55, "strength_clip": 0.5},
        {"name": NAMES[2], "strength_model": 1, "strength_clip": 1},
    ]
    view.page.evaluate(LOAD, sd15_graph([(NAMES[1], 0.5, 0.5)], loader="stack", tag="edited"))
    editor = view.page.locator(".ws-stack")
    edit_stack(editor)
    assert json.loads(view.page.evaluate(TEXT)) == wanted
    with view.page.expect_response(lambda answer: answer.url.endswith("/prompt")) as posted:
        view.page.evaluate(RUN)
    ran = posted.value.json()["prompt_id"]
    host.client.wait([ran])
    expect(view.page.get_by_role("list", name="Last run").get_by_role("listitem")).to_have_count(2)
    graph = host.client.get(f"/history/{ran}")[ran]["prompt"][2]
    texts = [node["inputs"]["loras"] for node in graph.values() if node["class_type"] == "WarmStackLoadLoraStack"]
    assert [json.loads(text) for text in texts] == [wanted]
    assert host.client.get("/settings/Comfy.Workflow.Persist") is True
    view.page.wait_for_function(KEPT)
    view.boot()
    expect(view.page.locator(".ws-stack-row")).to_have_count(2)
    assert json.loads(view.page.evaluate(TEXT)) == wanted
    expect(view.page.locator(".ws-strength").first).to_have_value("0.55")


def edit_stack(editor: Locator) -> None:
    """One step up for the strength of the first LoRA, and a second one."""
    from playwright.sync_api import expect

    expect(editor.locator(".ws-stack-row")).to_have_count(1)
    still(editor)
    strength = editor.locator(".ws-strength").first
    strength.press("ArrowUp")
    expect(strength).to_have_value("0.55")
    add_row(editor).fill("ink2")
    press(editor.get_by_role("option", name="ink2"))
    expect(editor.locator(".ws-stack-row[data-state]:not([data-state=off])")).to_have_count(2)


def test_the_keyboard_alone_opens_warms_pins_and_evicts(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    view.boot()
    name = NAMES[4]
    view.tab.focus()
    view.page.keyboard.press("Enter")
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("10,000")
    for _ in range(4):  # out of the side bar: refresh, the switch, filter
        view.page.keyboard.press("Tab")
        if view.page.evaluate("document.activeElement.type") == "search":
            break
    else:
        view.panel.get_by_role("searchbox").focus()
    view.page.keyboard.type("ink4")
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("1 of 10,000")
    view.page.keyboard.press("Tab")
    view.page.keyboard.press("Tab")
    expect(view.row(name)).to_be_focused()
    if view.row(name).get_attribute("data-state") != "ready":
        view.page.keyboard.press("w")
    expect(view.row(name)).to_have_attribute("data-state", "ready")
    pin = view.row(name).get_by_role("button", name="Pin")
    was_pinned = pin.get_attribute("aria-pressed") == "true"
    for pressed in ["false"] if was_pinned else ["true", "false"]:
        view.page.keyboard.press("p")
        expect(pin).to_have_attribute("aria-pressed", pressed)
    view.page.keyboard.press("Delete")
    expect(view.row(name)).not_to_have_attribute("data-state", "ready")
    assert name not in {adapter["name"] for adapter in host.client.get("/warmstack/v1/status")["adapters"]}


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_narrow_and_readable_in_dark_and_light(
    browser: Browser, host: HostServer, palette: str, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    from .browser_kit.axe import serious_violations
    from .browser_kit.opened import Opened

    host.client.post("/settings", {"Comfy.ColorPalette": palette})
    opened = Opened(browser, f"{host.client.url}/", width=400, height=1000)
    opened.boot()
    opened.open_panel()
    expect(opened.panel.locator(".ws-adapters .ws-count")).to_have_text("10,000")
    opened.panel.evaluate("(panel) => { panel.parentElement.style.inlineSize = '220px' }")
    assert opened.panel.evaluate("(panel) => panel.getBoundingClientRect().width") == 220
    assert opened.panel.evaluate("(panel) => panel.scrollWidth <= panel.clientWidth")
    opened.page.screenshot(path=Path(os.environ.get("WARMSTACK_PICTURES", tmp_path)) / f"host-{palette}.png")
    assert serious_violations(opened.page, "warmstack-panel") == []
    faults = opened.faults()
    opened.close()
    host.client.post("/settings", {"Comfy.ColorPalette": "dark"})
    assert faults == []


def test_ten_thousand_adapters_are_searched_and_scrolled(view: Opened) -> None:
    from playwright.sync_api import expect

    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("10,000")
    assert view.panel.locator(".ws-row").count() < 60
    view.panel.evaluate("(panel) => { panel.scrollTop = panel.scrollHeight }")
    expect(view.row(max(LIBRARY))).to_be_in_viewport()
    assert view.panel.locator(".ws-row").count() < 60
    view.panel.get_by_role("searchbox").fill("lora_07777")
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("1 of 10,000")


def test_a_server_that_is_killed_and_comes_back_is_live_again(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    link = view.panel.locator(".ws-link")
    expect(link).to_have_text("Live")
    assert host.process is not None
    host.process.kill()
    host.process.wait()
    expect(link).not_to_have_text("Live")
    view.panel.get_by_role("button", name="Refresh").click()
    expect(view.panel.get_by_role("alert")).to_contain_text("The server does not answer")
    host.start()
    expect(link).to_have_text("Live", timeout=30_000)
    expect(view.panel.get_by_role("alert")).to_have_count(0)
