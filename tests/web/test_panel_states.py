"""The panel alone: every state it can be in, every size, language and input device."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import MIB, FakeBackend, Row

if TYPE_CHECKING:
    from .browser_kit.component import ComponentPage

    Component = Callable[..., ComponentPage]

WIDTHS = (220, 312, 600, 845)


def test_error_before_the_first_answer_and_the_way_out(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = component()
    view.page.evaluate("kit.api.fetchApi = () => Promise.resolve(new Response('{}', { status: 404 }))")
    view.page.evaluate("kit.store.state = { ...kit.store.state, status: null, link: 'loading' }; kit.show()")
    expect(view.panel.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(view.panel.get_by_role("alert")).to_contain_text("HTTP 404")
    expect(view.panel.get_by_role("switch")).to_be_hidden()
    view.page.evaluate("kit.api.fetchApi = (route, init) => fetch('/api' + route, init)")
    view.panel.get_by_role("button", name="Try again").click()
    expect(view.panel.get_by_role("switch")).to_be_visible()
    expect(view.panel.get_by_role("alert")).to_have_count(0)


def test_while_the_host_reconnects_the_panel_says_so(component: Component, backend: FakeBackend) -> None:
    """Also when an answer comes that was on its way: nothing is pushed until the host has its connection again."""
    from playwright.sync_api import expect

    view = component()
    link = view.panel.locator(".ws-link")
    expect(link).to_have_text("Live")
    view.page.evaluate("kit.api.dispatchEvent(new Event('reconnecting'))")
    expect(link).to_have_text("Reconnecting…")
    backend.settings["enabled"] = False
    backend.revision += 1
    view.page.evaluate("kit.store.refresh()")
    expect(view.panel.get_by_role("switch")).not_to_be_checked()
    expect(link).to_have_text("Reconnecting…")
    view.page.evaluate("kit.api.dispatchEvent(new Event('reconnected'))")
    expect(link).to_have_text("Live")


def test_first_run_says_what_will_come(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.rows, backend.queue, backend.prefetch = {}, [], {}
    view = component()
    expect(view.panel.get_by_text("Nothing loaded yet")).to_be_visible()
    expect(view.panel.get_by_text("The queue is empty.")).to_be_visible()
    expect(view.panel.get_by_text("No LoRAs yet.")).to_be_visible()
    expect(view.panel.get_by_role("searchbox")).to_be_hidden()


def test_stock_loaders_alone_show_what_was_read_ahead(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.prefetch = {"page": {"hits": 9, "joins": 1, "misses": 0, "hidden_share": 0.996}, "under_pressure": True}
    view = component()
    expect(view.panel.locator(".ws-share")).to_have_text("99%")
    expect(view.panel.get_by_text("of LoRA bytes read ahead")).to_be_visible()
    expect(view.panel.get_by_text("9 hit (90%) · 1 joined · 0 missed")).to_be_visible()
    expect(view.panel.get_by_text("Memory is short")).to_be_visible()


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (("ready", "page"), "The next job is ready."),
        (("ready", "loading"), "The next job is still loading b."),
        (("cold", "cold"), "The next job would wait for a and 1 more."),
        (("loading", "missing"), "The next job has a problem with b."),
    ],
)
def test_one_line_tells_whether_the_next_job_waits(
    component: Component, backend: FakeBackend, states: tuple[str, str], verdict: str
) -> None:
    from playwright.sync_api import expect

    backend.queue = []
    backend.job("running", "x/z.safetensors", running=True, **{"x/z.safetensors": "cold"})
    backend.job(
        "next",
        "x/a.safetensors",
        "x/b.safetensors",
        **dict(zip(("x/a.safetensors", "x/b.safetensors"), states, strict=True)),
    )
    view = component()
    expect(view.panel.locator(".ws-verdict").first).to_have_text(verdict)


def test_jobs_that_were_not_read_are_no_empty_queue(component: Component, backend: FakeBackend) -> None:
    """As with prefetch off: the server counts the jobs and reads none."""
    from playwright.sync_api import expect

    backend.queue, backend.prefetch = [], {"queued_jobs": 12}
    view = component()
    expect(view.panel.get_by_role("heading", name="Queue 12")).to_be_visible()
    expect(view.panel.get_by_text("The queue is empty.")).to_be_hidden()
    expect(view.panel.get_by_text("more jobs")).to_be_hidden()


def test_jobs_beyond_those_that_are_drawn_are_counted(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.queue, backend.prefetch = [], {"queued_jobs": 40}
    for index in range(30):
        backend.job(f"job-{index}")
    view = component()
    expect(view.panel.locator(".ws-job")).to_have_count(24)
    expect(view.panel.get_by_text("16 more jobs")).to_be_visible()


def test_a_job_tells_of_the_model_that_it_holds(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.queue[0]["models"] = [{"name": "sdxl.safetensors", "kind": "checkpoints", "state": "in_use", "bytes": 9}]
    view = component()
    expect(view.panel.locator(".ws-running")).to_have_attribute("title", "5b1e\nsdxl.safetensors: in use")


def test_the_first_card_tells_what_was_hidden_saved_and_hit_and_what_is_loading(component: Component) -> None:
    from playwright.sync_api import expect

    view = component()
    expect(view.panel.get_by_text("of load time hidden")).to_be_visible()
    expect(view.panel.get_by_text("41 s saved · 0.6 s waited")).to_be_visible()
    expect(view.panel.get_by_text("37 hit (88%) · 4 joined · 1 missed")).to_be_visible()
    progress = view.panel.get_by_role("progressbar", name="concepts/floating_islands.safetensors")
    expect(progress).to_have_attribute("aria-valuenow", str(96 * 100 // 171))
    expect(view.panel.locator(".ws-load-size")).to_have_text("96.0 of 171 MiB")


@pytest.mark.parametrize(
    ("tier", "told"),
    [("resident", "into memory"), ("page", "reading ahead"), ("model", "reading ahead"), ("device", "graphics card")],
)
def test_what_is_loading_tells_where_to(component: Component, backend: FakeBackend, tier: str, told: str) -> None:
    from playwright.sync_api import expect

    backend.prefetch["in_flight"] = [{"name": "a.safetensors", "tier": tier, "bytes_done": 0, "bytes_total": 9}]
    view = component()
    progress = view.panel.get_by_role("progressbar", name=re.compile(told))
    expect(progress).to_be_visible()
    expect(progress).not_to_have_attribute("aria-valuenow", re.compile("."))


@pytest.mark.parametrize(
    ("bar", "amount", "told"),
    [
        ("Adapters", "1.0 of 4.0 GiB", "Peak: 1.2 GiB"),
        ("RAM", "13.0 of 32.0 GiB", "Main memory"),
        ("VRAM cuda:0", "15.0 of 24.0 GiB", "graphics card"),
        ("File cache", "6.0 of 32.0 GiB", "703 MiB of LoRAs that were read ahead"),
    ],
)
def test_every_bar_has_numbers_and_tells_what_it_means(component: Component, bar: str, amount: str, told: str) -> None:
    from playwright.sync_api import expect

    view = component()
    meter = view.panel.get_by_role("meter", name=bar, exact=True)
    expect(meter).to_have_attribute("aria-valuetext", amount)
    box = view.panel.locator(".ws-bar", has=view.page.get_by_role("meter", name=bar, exact=True))
    expect(box).to_contain_text(amount)
    expect(box).to_have_attribute("title", re.compile(re.escape(told)))


def test_the_queue_tells_at_once_what_was_read_ahead(component: Component, backend: FakeBackend) -> None:
    """The library is fetched rarely; a chip is as new as the last push."""
    from playwright.sync_api import expect

    view = component(height=2000)
    row = view.row("styles/risograph_two_tone.safetensors")
    expect(row).to_have_attribute("data-state", "cold")
    backend.queue[4]["adapters"][0].update(state="ready", tier="page")  # type: ignore[index]
    backend.revision += 1
    view.push(backend.status())
    expect(row).to_have_attribute("data-state", "page")
    expect(view.panel.locator(".ws-bar[title*='777 MiB of LoRAs']")).to_have_count(1)


def test_older_revisions_are_dropped_and_a_new_boot_is_not(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = component()
    switch = view.panel.get_by_role("switch")
    expect(switch).to_be_checked()
    held = "kit.store.state.status.prefetch.enabled"
    old = {**backend.status(), "revision": 0, "prefetch": {"enabled": False}}
    view.push(old)
    assert view.page.evaluate(held) is True
    view.push({**old, "boot": "boot-2"})
    assert view.page.evaluate(held) is False
    expect(switch).not_to_be_checked()


def test_a_burst_of_pushes_is_two_redraws_a_second_and_none_while_hidden(
    component: Component, backend: FakeBackend
) -> None:
    view = component()
    shown, windows, hidden = view.page.evaluate(
        """async (status) => {
          let draws = 0
          const observer = new MutationObserver(() => { draws += 1 })
          observer.observe(document.querySelector('.ws-share'), { childList: true, characterData: true, subtree: true })
          const burst = async (share) => {
            for (let step = 0; step < 60; step += 1) {
              status.revision += 1
              status.prefetch.hidden_share = share + step / 200
              kit.push(structuredClone(status))
              await new Promise((resolve) => setTimeout(resolve, 15))
            }
          }
          const start = performance.now()
          await burst(0.1)
          const [shown, windows] = [draws, (performance.now() - start) / 500]
          Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })
          await new Promise((resolve) => setTimeout(resolve, 700))
          // A draw that was due before comes in this frame at the latest.
          await new Promise(requestAnimationFrame)
          const before = draws
          await burst(0.5)
          return [shown, windows, draws - before]
        }""",
        backend.status(),
    )
    assert 1 <= shown <= 1 + windows, "a slow machine takes longer for as many pushes"
    assert hidden == 0


def test_the_timeline_draws_each_job_that_the_server_tells_of(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.finish("no-loras")
    backend.finish("waited", misses=1, load_s=2.0, wait_s=1.5)
    backend.finish("hidden", hits=1, load_s=1.0)
    backend.finish("pages", page_hits=3)
    view = component()
    columns = view.panel.get_by_role("list", name="Last jobs").get_by_role("listitem")
    expect(columns).to_have_count(3)
    heights = columns.evaluate_all("(all) => all.map((li) => [...li.children].map((i) => i.style.blockSize))")
    assert heights == [["25%", "75%", ""], ["50%", "0%", ""], ["12.5%", "0%", ""]]
    expect(columns.nth(2)).to_have_text("3 hit · 0 joined · 0 missed")


def test_a_refused_action_is_told(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    view = component()
    expect(view.panel.get_by_role("switch")).to_be_visible()
    view.page.evaluate(
        """() => {
          const refusal = { error: { type: 'x', message: 'no room for it' } }
          kit.api.fetchApi = () => Promise.resolve(new Response(JSON.stringify(refusal), { status: 409 }))
        }"""
    )
    view.panel.get_by_role("switch").click()
    view.page.wait_for_function("kit.reports.length === 1")
    assert view.page.evaluate("kit.reports") == ["WarmStack could not do that: no room for it"]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_panel(component: Component, backend: FakeBackend, width: int) -> None:
    from playwright.sync_api import expect

    long = "a_very_long_style_name_without_any_break_at_all_v2_final_really.safetensors"
    backend.rows[f"{'deep_folder/' * 4}{long}"] = Row(f"{'deep_folder/' * 4}{long}", 300 * MIB, "ready")
    backend.job("long", f"{'deep_folder/' * 4}{long}")
    view = component(width=width)
    expect(view.panel.locator(".ws-row")).not_to_have_count(0)
    wide = view.panel.evaluate(
        """(panel) => [...panel.querySelectorAll('*')]
             .filter((e) => !e.parentElement.closest('.ws-cell, .ws-chip'))
             .filter((e) => e.getBoundingClientRect().right > panel.getBoundingClientRect().right + 0.5)
             .map((e) => e.className.baseVal ?? e.className)"""
    )
    # Inside a cell or a chip text is cut with an ellipsis; only boxes count.
    assert wide == []
    assert view.panel.evaluate("(panel) => panel.scrollWidth <= panel.clientWidth")


@pytest.mark.parametrize("palette", ["dark", "light", "solarized", "nord"])
def test_axe_finds_nothing_serious(component: Component, backend: FakeBackend, palette: str) -> None:
    from playwright.sync_api import expect

    backend.finish_jobs(4)
    view = component(height=1600)
    expect(view.panel.get_by_role("list", name="Last jobs").get_by_role("listitem")).to_have_count(4)
    expect(view.panel.locator(".ws-adapters .ws-count")).to_have_text(str(len(backend.rows)))
    view.page.evaluate("(palette) => document.documentElement.classList.add(palette)", palette)
    from .browser_kit.axe import serious_violations

    assert serious_violations(view.page, "warmstack-panel") == []


@pytest.mark.parametrize(("locale", "word"), [("zh", "队列"), ("zh-TW", "队列"), ("ja", "キュー"), ("de", "Queue")])
def test_speaks_the_language_of_the_host(component: Component, locale: str, word: str) -> None:
    from playwright.sync_api import expect

    view = component(query=f"?locale={locale}")
    expect(view.panel.get_by_role("heading", name=word)).to_be_visible()


HOLD_ANSWERS = """() => {
  const fetchApi = kit.api.fetchApi
  const held = []
  kit.api.fetchApi = async (...asked) => {
    const answer = await fetchApi(...asked)
    await new Promise((go) => held.push(go))
    return answer
  }
  kit.held = held
  kit.letGo = () => {
    kit.api.fetchApi = fetchApi
    for (const go of held) go()
  }
}"""


@pytest.mark.parametrize(
    ("source", "names"),
    [("catalog", "kit.catalog.rows"), ("store", "kit.store.state.status.adapters")],
)
def test_an_answer_that_is_older_than_the_question_is_not_the_last_word(
    component: Component, backend: FakeBackend, source: str, names: str
) -> None:
    """A library of 10,000 takes ten pages, and what has changed meanwhile stands on the first."""
    view = component()
    view.page.evaluate(f"async () => {{ await kit.{source}.refresh() }}")
    view.page.evaluate(HOLD_ANSWERS)
    view.page.evaluate(f"void kit.{source}.refresh()")
    view.page.wait_for_function("kit.held.length > 0")
    backend.rows["new"] = Row("new", MIB, "ready")
    backend.revision += 1
    view.page.evaluate(f"() => {{ const asked = kit.{source}.refresh(); kit.letGo(); return asked }}")
    assert "new" in view.page.evaluate(f"{names}.map(({{ name }}) => name)")


STATUS = "GET /api/warmstack/v1/status"
SEEN = """(state) => {
  Object.defineProperty(document, 'visibilityState', { value: state, configurable: true })
  document.dispatchEvent(new Event('visibilitychange'))
}"""


def test_only_a_panel_that_is_there_and_seen_asks_for_the_status(component: Component, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    def hour() -> int:
        """How often it is asked for meanwhile."""
        # With this answer none is on its way any more.
        view.page.evaluate("() => kit.store.refresh()")
        before = view.host.requests.count(STATUS)
        view.page.clock.run_for(3_600_000)
        view.page.evaluate("() => kit.store.refresh()")
        return view.host.requests.count(STATUS) - before - 1

    view = component(once=True)
    view.page.clock.install(time=0)
    view.boot()
    expect(view.panel.get_by_role("switch")).to_be_checked()
    view.page.clock.pause_at(600_000)
    with view.page.expect_response("**/warmstack/v1/status"):
        view.page.clock.run_for(15_000)
    view.page.evaluate(SEEN, "hidden")
    assert hour() == 0
    backend.settings["enabled"] = False
    backend.revision += 1
    with view.page.expect_response("**/warmstack/v1/status"):
        view.page.evaluate(SEEN, "visible")
    view.page.clock.run_for(1000)
    expect(view.panel.get_by_role("switch")).not_to_be_checked()
    view.page.evaluate("document.querySelector('main').replaceChildren()")
    assert hour() == 0


def test_opening_the_panel_looks_through_the_folders_once(component: Component, backend: FakeBackend) -> None:
    """The first page of the table does; a file that has come or gone tells nobody."""
    from playwright.sync_api import expect

    view = component(height=2000, once=True)
    view.page.clock.install(time=0)
    view.boot()
    expect(view.row("concepts/glass_anatomy.safetensors")).to_be_visible()
    backend.rows["styles/new.safetensors"] = Row("styles/new.safetensors", MIB)
    looks = view.host.requests.count("GET /api/warmstack/v1/adapters")
    view.page.evaluate("kit.show()")
    view.page.clock.run_for(6000)
    expect(view.row("styles/new.safetensors")).to_be_visible()
    for share in ("11%", "12%", "13%"):
        backend.prefetch["hidden_share"] = float(share[:-1]) / 100
        backend.revision += 1
        view.push(backend.status())
        expect(view.panel.locator(".ws-share")).to_have_text(share)
    assert view.host.requests.count("GET /api/warmstack/v1/adapters") == looks + 1


def test_every_language_has_every_word(component: Component) -> None:
    view = component()
    words: dict[str, list[str]] = view.page.evaluate(
        """async () => {
          const { TABLES } = await import('/extensions/comfyui-warmstack/lib/text.js')
          const isWord = (value) => typeof value === 'string' || 'other' in value
          const keys = (table, at = '') => Object.entries(table).flatMap(([key, value]) =>
            isWord(value) ? [at + key + ' ' + slots(value)] : keys(value, at + key + '.'))
          const slots = (value) => [...new Set((value.other ?? value).match(/\\{\\w+\\}/g) ?? [])].sort().join()
          return Object.fromEntries(Object.entries(TABLES).map(([language, table]) => [language, keys(table).sort()]))
        }"""
    )
    assert words["zh"] == words["en"]
    assert words["ja"] == words["en"]
