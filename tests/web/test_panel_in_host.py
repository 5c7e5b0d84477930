"""The panel in the real front ends, under the host's strictest policy. `opened` and `booted` fail every test here for a
page error, a console message of ours, a policy violation or a request to anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import GIB, MIB, FakeBackend
from .browser_kit.stack_node import SEND

if TYPE_CHECKING:
    from .browser_kit.opened import OpenedStub

    Open = Callable[..., OpenedStub]


up = pytest.mark.parametrize("booted", [False], indirect=True, ids=[""])
"""In the front end that is up: what these tests leave behind can be put back."""


@pytest.fixture
def view(booted: tuple[OpenedStub, FakeBackend], editing: FakeBackend) -> Iterator[OpenedStub]:
    """With its panel open."""
    from playwright.sync_api import expect

    view = booted[0]
    view.page.evaluate(SEND, editing.status())
    view.open_panel()
    yield view
    view.page.unroute_all()
    view.tab.click()
    expect(view.panel).to_have_count(0)
    assert view.faults() == []


@up
def test_opens_and_follows_pushes(view: OpenedStub, editing: FakeBackend) -> None:
    from playwright.sync_api import expect

    expect(view.panel.get_by_text("98%")).to_be_visible()
    expect(view.chip("9d44", "floating_islands")).to_have_attribute("data-state", "loading")
    expect(view.chip("b7f9", "ghost")).to_contain_text("missing")
    view.only_pushes()
    editing.queue[2]["adapters"][0]["state"] = "ready"  # type: ignore[index]
    editing.set("concepts/floating_islands.safetensors", state="ready")
    view.host.push()
    expect(view.chip("9d44", "floating_islands")).to_have_attribute("data-state", "ready")
    expect(view.row("concepts/floating_islands.safetensors")).to_contain_text("ready")


@up
def test_prefetch_switch_reaches_the_server_and_back(view: OpenedStub, editing: FakeBackend) -> None:
    from playwright.sync_api import expect

    switch = view.panel.get_by_role("switch", name="Prefetch")
    expect(switch).to_be_checked()
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "false")
    expect(view.panel.get_by_text("Off: every job loads its own LoRAs")).to_be_visible()
    assert editing.settings["enabled"] is False
    view.only_pushes()
    editing.settings["enabled"] = True
    editing.revision += 1
    view.host.push()
    expect(switch).to_be_checked()


@up
def test_pin_evict_and_warm(view: OpenedStub, editing: FakeBackend) -> None:
    from playwright.sync_api import expect

    name = "styles/linocut.safetensors"
    view.page.set_viewport_size({"width": 1440, "height": 2000})
    row = view.row(name)
    row.get_by_role("button", name=f"Pin {name}").click()
    expect(row.get_by_role("button", name=f"Pin {name}")).to_have_attribute("aria-pressed", "true")
    evict = row.get_by_role("button", name=f"Evict {name}")
    expect(evict).to_have_attribute("title", "Pinned: unpin it first")
    evict.click(force=True)
    row.get_by_role("button", name=f"Pin {name}").click()
    expect(row.get_by_role("button", name=f"Pin {name}")).to_have_attribute("aria-pressed", "false")
    evict.click()
    expect(row).to_have_attribute("data-state", "cold")
    row.get_by_role("button", name=f"Warm {name}").click()
    expect(row).to_have_attribute("data-state", "ready")
    asked = [("pin", (name,)), ("unpin", (name,)), ("evict", (name,)), ("warm", (name,))]
    assert editing.actions == asked
    in_use = "styles/gouache_night.safetensors"
    view.row(in_use).get_by_role("button", name="Evict").click(force=True)
    assert editing.actions == asked


def test_server_gone_and_back(opened: Open, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = opened()
    view.open_panel()
    expect(view.panel.locator(".ws-link")).to_have_text("Live")
    view.host.stop()
    expect(view.panel.locator(".ws-link")).not_to_have_text("Live")
    view.panel.get_by_role("button", name="Refresh").click()
    expect(view.panel.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(view.panel.get_by_text("98%")).to_be_visible()
    backend.boot, backend.revision, backend.queue = "boot-2", 1, []
    view.host.start()
    # Nothing is pressed: the host's own new connection may come first, and take the button away.
    expect(view.panel.get_by_role("alert")).to_have_count(0)
    expect(view.panel.get_by_text("The queue is empty.")).to_be_visible()


def test_leaves_when_another_tab_takes_its_place_and_comes_back(opened: Open) -> None:
    from playwright.sync_api import expect

    view = opened()
    view.open_panel()
    expect(view.panel.locator(".ws-link")).to_have_text("Live")
    # The host gives both tabs one box, and tells nobody when it changes hands.
    view.page.evaluate(
        """() => window.comfyAPI.app.app.extensionManager.registerSidebarTab({
          id: 'other', icon: 'pi pi-star', title: 'Other', tooltip: 'Other pack', type: 'custom',
          render: (box) => { box.append(document.createElement('p')) },
        })"""
    )
    view.page.get_by_role("button", name="Other pack").first.click()
    expect(view.panel).to_have_count(0)
    view.tab.click()
    expect(view.panel).to_have_count(1)
    expect(view.panel.locator(".ws-link")).to_have_text("Live")


def test_badge_counts_problems_until_they_were_seen(opened: Open, backend: FakeBackend) -> None:
    view = opened()
    tabs = "window.comfyAPI.app.app.extensionManager.getSidebarTabs()"
    badge = f"{tabs}.find((tab) => tab.id === 'warmstack').iconBadge"
    view.host.push()
    view.page.wait_for_function(f"() => {badge} === '2'")
    view.open_panel()
    backend.revision += 1
    view.host.push()
    view.page.wait_for_function(f"() => {badge} === null")


def test_settings_page_tells_the_server_and_is_told_by_it(opened: Open, backend: FakeBackend) -> None:
    stored = {"WarmStack.Prefetch": False, "WarmStack.Budget": 3}
    view = opened(settings=stored)
    value = "(id) => window.comfyAPI.app.app.extensionManager.setting.get(id)"
    view.page.wait_for_function(f"() => ({value})('WarmStack.Prefetch') === true")
    assert view.page.evaluate(value, "WarmStack.Budget") == 0
    assert backend.settings["enabled"] is True, "what one browser has stored is no wish"
    change = "([id, value]) => window.comfyAPI.app.app.extensionManager.setting.set(id, value)"
    view.page.evaluate(change, ["WarmStack.Budget", 6.5])
    view.page.evaluate(change, ["WarmStack.ReadLimit", 200])
    told = "(s) => s.settings.budget_bytes && s.settings.read_limit_bytes_per_s"
    view.page.wait_for_function(f"() => fetch('/api/warmstack/v1/status').then((r) => r.json()).then({told})")
    assert backend.settings["budget_bytes"] == int(6.5 * GIB)
    assert backend.settings["read_limit_bytes_per_s"] == 200 * MIB
    backend.settings["concurrency"] = 4
    backend.revision += 1
    view.host.push()
    view.page.wait_for_function(f"() => ({value})('WarmStack.Concurrency') === 4")
    # 0 says "automatic" there, and nothing at all to the server.
    backend.settings.update(budget_bytes=0, depth_jobs=0, read_limit_bytes_per_s=1)
    backend.revision += 1
    view.host.push()
    shown = ["WarmStack.Budget", "WarmStack.Depth", "WarmStack.ReadLimit"]
    view.page.wait_for_function(f"(shown) => shown.map({value}).join() === '0.01,1,0.01'", arg=shown)


def test_memory_to_leave_free_goes_back_to_automatic_on_the_settings_page(opened: Open, backend: FakeBackend) -> None:
    backend.settings["headroom_bytes"] = GIB
    view = opened()
    setting = "window.comfyAPI.app.app.extensionManager.setting"
    view.page.wait_for_function(f"() => {setting}.get('WarmStack.Headroom') === 1")
    with view.page.expect_response("**/warmstack/v1/settings"):
        view.page.evaluate(f"{setting}.set('WarmStack.Headroom', 0)")
    assert backend.settings["headroom_bytes"] is None


@up
def test_command_turns_prefetch_off(view: OpenedStub, editing: FakeBackend) -> None:
    view.page.evaluate("window.comfyAPI.app.app.extensionManager.command.execute('WarmStack.TogglePrefetch')")
    view.page.get_by_text("Off: every job loads its own LoRAs and waits for them.").first.wait_for()
    assert editing.settings["enabled"] is False


@up
def test_nothing_is_put_into_the_top_bar(view: OpenedStub) -> None:
    added = view.page.evaluate(
        """() => {
          const elsewhere = ['topbarBadges', 'actionBarButtons', 'menuCommands', 'keybindings']
          const ours = window.comfyAPI.app.app.extensions.filter((one) => one.name.startsWith('WarmStack'))
          return ours.flatMap((one) => elsewhere.filter((key) => one[key]))
        }"""
    )
    assert added == []
    assert view.page.locator(".comfyui-body-top :text-matches('warmstack', 'i')").count() == 0
