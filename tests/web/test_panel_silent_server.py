"""The panel beside a server that takes questions and answers none: it hangs, is stopping, or is gone without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import MIB, FakeBackend, Row

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from .browser_kit.component import ComponentPage


@pytest.fixture
def view(component: Callable[..., ComponentPage]) -> ComponentPage:
    """Time stands still but for `run_for`."""
    from playwright.sync_api import expect

    view = component(height=2000, once=True)
    view.page.clock.install(time=0)
    view.page.evaluate("kit.show()")
    expect(view.panel.locator(".ws-link")).to_have_text("Live")
    expect(view.row("styles/linocut.safetensors")).to_be_visible()
    view.page.clock.pause_at(600_000)
    view.page.evaluate("kit.store.refresh()")
    return view


def hold(page: Page, route: str) -> list[Route]:
    held: list[Route] = []
    page.route(f"**/warmstack/v1/{route}", lambda one: held.append(one))
    return held


def let_go(page: Page, route: str, held: list[Route]) -> None:
    for one in held:
        one.continue_()
    page.unroute(f"**/warmstack/v1/{route}")


def test_a_server_that_does_not_answer_is_not_live(view: ComponentPage, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    hold(view.page, "status")
    view.page.evaluate("void kit.store.refresh()")
    view.page.clock.run_for(14_000)
    assert view.page.evaluate("kit.store.state.link") == "live", "slow is not gone"
    view.page.clock.run_for(2_000)
    view.page.clock.resume()
    expect(view.panel.locator(".ws-link")).to_have_text("Not updating")
    expect(view.panel.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(view.panel.get_by_role("alert")).to_contain_text("no answer for 15 s")
    expect(view.panel.get_by_text("98%")).to_be_visible()
    view.push(backend.status())
    expect(view.panel.locator(".ws-link")).to_have_text("Live")
    expect(view.panel.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(("pressed", "route"), [("Refresh", "status"), ("Prefetch", "settings")])
def test_what_was_pressed_shows_at_once_that_it_asks(view: ComponentPage, pressed: str, route: str) -> None:
    from playwright.sync_api import expect

    view.page.clock.resume()
    held = hold(view.page, route)
    refresh = view.panel.get_by_role("button", name="Refresh")
    expect(refresh).not_to_have_attribute("aria-busy", "true")
    view.panel.locator(f"button[aria-label={pressed}]").click()
    expect(refresh).to_have_attribute("aria-busy", "true")
    let_go(view.page, route, held)
    expect(refresh).not_to_have_attribute("aria-busy", "true")


def test_an_action_that_nobody_answers_is_told(view: ComponentPage) -> None:
    hold(view.page, "settings")
    view.panel.get_by_role("switch").press("Enter")
    view.page.clock.run_for(16_000)
    view.page.clock.resume()
    view.page.wait_for_function("kit.reports.length === 1")
    assert view.page.evaluate("kit.reports") == ["WarmStack could not do that: no answer for 15 s"]


def test_a_library_on_a_slow_disk_is_waited_for(view: ComponentPage, backend: FakeBackend) -> None:
    """Asked again, the server would wait for it again, in one more of its threads."""
    from playwright.sync_api import expect

    held = hold(view.page, "adapters*")
    backend.rows["styles/new.safetensors"] = Row("styles/new.safetensors", MIB)
    view.panel.get_by_role("button", name="Refresh").press("Enter")
    view.page.clock.run_for(300_000)
    view.page.clock.resume()
    assert len(held) == 1
    let_go(view.page, "adapters*", held)
    expect(view.row("styles/new.safetensors")).to_be_visible()
