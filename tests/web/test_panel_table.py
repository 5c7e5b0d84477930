"""The table of adapters in the panel: every row, its order, its actions, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import MIB, FakeBackend, Row

if TYPE_CHECKING:
    from .browser_kit.component import ComponentPage

    Component = Callable[..., ComponentPage]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("By name", "characters/aurora_knight"),
        ("By size", "flux/soft_volume_flux"),
        ("By queue", "characters/aurora_knight"),
        ("By hits", "styles/ink_wash_v3"),
        ("By last use", "styles/gouache_night"),
        ("By category", "characters/aurora_knight"),
        ("By base", "flux/kodak_portra_flux"),
        ("By state", "characters/aurora_knight"),
    ],
)
def test_the_table_is_sorted_by_every_column(component: Component, sort: str, first: str) -> None:
    from playwright.sync_api import expect

    view = component()
    view.panel.get_by_role("combobox", name="Sort by").select_option(label=sort)
    expect(view.panel.locator('.ws-row[aria-rowindex="1"]')).to_have_attribute("data-key", f"{first}.safetensors")


def test_a_row_tells_everything_when_the_pointer_rests_on_it(component: Component) -> None:
    from playwright.sync_api import expect

    view = component()
    told = "ready · 228 MiB · 1 queued · sdxl · 14 hits · 48 s ago · characters"
    name = "characters/aurora_knight.safetensors"
    expect(view.row(name)).to_have_attribute("title", f"{name}\n{told}")


def test_ten_thousand_rows_are_drawn_a_screen_at_a_time(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.rows = {
        name: Row(name, 90 * MIB) for name in (f"pack{i % 40:02}/lora_{i:05}.safetensors" for i in range(10_000))
    }
    backend.queue = []
    view = component()
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("10,000")
    assert view.panel.locator(".ws-row").count() < 60
    view.panel.evaluate("(panel) => { panel.scrollTop = panel.scrollHeight }")
    expect(view.row("pack39/lora_09999.safetensors")).to_be_in_viewport()
    assert view.panel.locator(".ws-row").count() < 60
    view.panel.get_by_role("searchbox").fill("pack07 0500")
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text("1 of 10,000")
    view.panel.get_by_role("searchbox").fill("nowhere")
    expect(view.panel.get_by_text("Nothing matches “nowhere”.")).to_be_visible()


def test_what_the_status_has_no_room_for_is_still_in_memory(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    names = [f"a/{index:03}.safetensors" for index in range(250)]
    backend.rows, backend.queue = {name: Row(name, 37 * MIB, "ready", pinned=True) for name in names}, []
    view = component()
    view.panel.get_by_role("searchbox").fill(names[-1])
    expect(view.row(names[-1])).to_have_attribute("data-state", "ready")


def test_what_has_left_memory_is_neither_pinned_nor_hit(component: Component, backend: FakeBackend) -> None:
    """Unpinned and evicted in another tab: the library is not fetched for that."""
    from playwright.sync_api import expect

    name = "characters/aurora_knight.safetensors"
    view = component(height=2000)
    expect(view.row(name)).to_contain_text("14 hits")
    view.page.route("**/warmstack/v1/adapters*", lambda route: None)
    backend.set(name, state="cold", pinned=False)
    view.push(backend.status())
    expect(view.row(name)).to_have_attribute("data-state", "cold")
    expect(view.row(name)).not_to_contain_text("hits")
    expect(view.row(name).get_by_role("button", name="Pin")).to_be_hidden()


def test_keyboard_alone_moves_pins_evicts_and_keeps_its_place(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = component()
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text(str(len(backend.rows)))
    names = view.panel.locator(".ws-row").evaluate_all("(rows) => rows.map((row) => row.dataset.key)")
    view.panel.get_by_role("combobox").focus()
    view.page.keyboard.press("Tab")
    expect(view.row(names[0])).to_be_focused()
    view.page.keyboard.press("ArrowDown")
    view.page.keyboard.press("ArrowDown")
    expect(view.row(names[2])).to_be_focused()
    view.page.keyboard.press("p")
    expect(view.row(names[2]).get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "true")
    expect(view.row(names[2])).to_be_focused()
    view.page.keyboard.press("Delete")
    view.page.keyboard.press("p")
    expect(view.row(names[2]).get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "false")
    view.page.keyboard.press("Delete")
    expect(view.row(names[2])).to_have_attribute("data-state", "cold")
    expect(view.panel.locator(".ws-row:focus")).to_have_count(1)
    assert backend.actions == [("pin", (names[2],)), ("unpin", (names[2],)), ("evict", (names[2],))]
    view.page.keyboard.press("End")
    expect(view.panel.locator(".ws-row:focus")).to_have_attribute("aria-rowindex", str(len(backend.rows)))
    with view.page.expect_response("**/warmstack/v1/warm"):
        view.page.keyboard.press("w")
    view.page.wait_for_function("document.activeElement.classList.contains('ws-row')")
    assert backend.actions[-1][0] == "warm"


def test_focus_on_a_button_survives_a_push(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = component()
    name = "styles/ink_wash_v3.safetensors"
    button = view.row(name).get_by_role("button", name=f"Pin {name}")
    button.focus()
    backend.set("styles/linocut.safetensors", hits=50)
    view.push(backend.status())
    expect(view.row("styles/linocut.safetensors")).to_contain_text("50 hits")
    expect(button).to_be_focused()


def test_a_name_that_an_action_refuses_is_told_with_the_reason(component: Component, backend: FakeBackend) -> None:
    backend.rows["old.pt"] = Row("old.pt", MIB)
    view = component(height=2000)
    view.row("old.pt").get_by_role("button", name="Warm").click()
    view.page.wait_for_function("kit.reports.length === 1")
    told = "WarmStack could not do that: old.pt: a pickle is only read when a job loads it"
    assert view.page.evaluate("kit.reports") == [told]


def test_a_name_is_found_however_its_accents_are_written(component: Component, backend: FakeBackend) -> None:
    """An archive from a Mac writes the letter and its accent apart."""
    from playwright.sync_api import expect

    name = "styles/cafe\u0301.safetensors"
    backend.rows[name] = Row(name, MIB)
    view = component()
    view.panel.get_by_role("searchbox").fill("caf\u00e9")
    expect(view.row(name)).to_be_visible()
