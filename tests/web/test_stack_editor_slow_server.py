"""What the stack editors ask of a server that is slow, busy or gone for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from .browser_kit.fake_backend import MIB, FakeBackend, Row
from .browser_kit.slow_server import SlowServer
from .browser_kit.stack_node import INK, KNIGHT, LINOCUT, applied, paste

if TYPE_CHECKING:
    from .browser_kit.component import ComponentPage


@pytest.fixture
def server(component: Callable[..., ComponentPage], backend: FakeBackend) -> SlowServer:
    return SlowServer(component(once=True).page, backend)


def states(server: SlowServer) -> list[str | None]:
    rows = server.page.locator(".ws-stack-row")
    found: list[str | None] = rows.evaluate_all("(rows) => rows.map((row) => row.dataset.state)")
    return found


def test_a_download_asks_no_more_than_a_slow_server_can_answer(server: SlowServer) -> None:
    """It moves the catalog twice a second, and each look at the folders moves it again."""
    for row in (INK, KNIGHT, LINOCUT, INK):
        server.add_node(row)
    for _ in range(20):
        server.move()
        server.wait(500)
    assert server.plans == 2, "more would stand in the way of the queue"
    assert server.catalogs <= 3
    for _ in range(20):
        server.answer()
        server.move()
        server.wait(500)
        server.move()
        server.wait(500)
    assert states(server) == ["ready"] * 4, "while the catalog goes on moving"
    assert server.most_open_plans == 2
    assert server.plans <= 4 * (1 + 30 // 5 + 1)
    assert server.catalogs <= 1 + 30 // 5


def test_two_questions_that_nobody_answers_silence_no_other_editor(server: SlowServer) -> None:
    for row in (INK, KNIGHT, LINOCUT):
        server.add_node(row)
    server.wait(1000)
    assert server.plans == 2
    server.wait(20_000)
    assert server.plans == 3
    server.answer()
    assert states(server) == ["ready"] * 3


def test_the_last_state_of_the_catalog_is_asked_about(server: SlowServer, backend: FakeBackend) -> None:
    server.add_node({**INK, "name": "styles/new.safetensors"})
    server.wait(1000)
    server.answer()
    assert states(server) == ["missing"]
    server.move()
    server.wait(100)
    backend.rows["styles/new.safetensors"] = Row("styles/new.safetensors", MIB)
    server.move()
    server.wait(10_000)
    server.answer()
    assert states(server) == ["cold"]


def test_a_row_is_asked_about_again_when_the_library_or_the_server_is_another(
    server: SlowServer, backend: FakeBackend
) -> None:
    new = "styles/new.safetensors"
    server.add_node({**INK, "name": new}, LINOCUT)
    server.wait(1000)
    server.answer()
    assert states(server) == ["missing", "ready"]
    backend.rows[new] = Row(new, MIB)
    server.move()
    server.wait(10_000)
    server.answer()
    assert states(server) == ["cold", "ready"]
    backend.set(new, state="page")
    server.finish_run(applied(new, 1, "sdxl"))
    server.wait(1000)
    server.answer()
    assert states(server) == ["page", "ready"]
    del backend.rows[LINOCUT["name"]]
    backend.boot = "boot-2"
    server.push()
    server.wait(10_000)
    server.answer()
    assert states(server) == ["page", "missing"]


def test_a_file_that_comes_while_the_panel_is_closed_is_offered(server: SlowServer, backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    server.add_node()
    server.page.get_by_role("button", name="Add LoRA").press("Enter")
    server.page.get_by_role("combobox", name="Choose a LoRA").fill("new")
    expect(server.page.get_by_text("Nothing matches")).to_be_visible()
    backend.rows["styles/new.safetensors"] = Row("styles/new.safetensors", MIB)
    server.move()
    server.wait(10_000)
    expect(server.page.get_by_role("option", name="new")).to_be_visible()


def test_what_is_edited_while_an_answer_is_on_its_way_is_asked_for_after_it(server: SlowServer) -> None:
    server.add_node(INK)
    server.wait(1000)
    for _ in range(3):
        server.page.get_by_role("button", name="Duplicate").first.press("Enter")
        server.wait(1000)
    assert server.plans == 1
    server.page.get_by_role("combobox", name="Choose a LoRA").first.fill(LINOCUT["name"])
    server.page.get_by_role("combobox", name="Choose a LoRA").first.press("Enter")
    server.answer()
    assert states(server) == ["off", "ready", "ready", "ready"], "the answer holds for the rows that it is about"
    server.wait(1000)
    server.answer()
    assert states(server) == ["ready"] * 4
    assert server.plans <= 3


def test_rows_are_asked_about_again_when_the_server_is_back_after_long(server: SlowServer) -> None:
    server.add_node(INK)
    server.disconnect()
    server.wait(200_000)
    assert states(server) == ["off"]
    server.reconnect()
    server.wait(1000)
    server.answer()
    assert states(server) == ["ready"]


def test_a_text_that_the_server_cannot_read_stays_as_it_is(server: SlowServer) -> None:
    text = "<lora:styles/linocut:1> <lora:styles/ink_wash_v3:much>"
    server.add_node(text=text)
    server.page.get_by_role("button", name="Edit as rows").press("Enter")
    server.answer()
    assert server.page.evaluate("kit.nodes[0].widgets[0].value") == text
    assert "'much' is not a number" in "".join(server.page.evaluate("kit.refused"))


def test_rows_whose_strength_goes_by_a_file_that_is_not_there_stay_a_request(server: SlowServer) -> None:
    text = '{"category_weights": {"styles": 0.5}, "models": ["styles/linocut", "styles/gone"]}'
    server.add_node(text=text)
    server.page.get_by_role("button", name="Edit as rows").press("Enter")
    server.answer()
    assert server.page.evaluate("kit.nodes[0].widgets[0].value") == text
    assert "styles/gone" in "".join(server.page.evaluate("kit.refused"))
    server.add_node(text=text.replace(', "styles/gone"', ""))
    server.page.get_by_role("button", name="Edit as rows").last.press("Enter")
    server.answer()
    assert '"strength_model":0.5,"strength_clip":0.5' in server.page.evaluate("kit.nodes[1].widgets[0].value")


COUNT_READS = """() => {
  kit.reads = 0
  kit.catalog.rows = new Proxy(kit.catalog.rows, {
    get: (rows, key) => {
      kit.reads += 1
      return Reflect.get(rows, key)
    },
  })
}"""


def test_a_push_does_not_go_through_the_library(server: SlowServer, backend: FakeBackend) -> None:
    """Up to twice a second, for every row of every node: with 10,000 files the canvas stood still meanwhile."""
    server.add_node(INK, KNIGHT)
    server.wait(1000)
    server.answer()
    server.page.evaluate(COUNT_READS)
    backend.set(INK["name"], state="cold")
    server.push()
    assert states(server) == ["cold", "ready"]
    assert server.page.evaluate("kit.reads") == 0


FOCUS_ELSEWHERE = """() => {
  const elsewhere = document.body.appendChild(document.createElement('input'))
  elsewhere.id = 'elsewhere'
  elsewhere.focus()
}"""
FOCUSED = "document.activeElement.id || document.activeElement.type"


@pytest.mark.parametrize(("leave", "focused"), [(True, "elsewhere"), (False, "checkbox")], ids=["gone on", "waiting"])
def test_rows_that_come_late_take_the_focus_of_nobody_else(server: SlowServer, leave: bool, focused: str) -> None:
    server.add_node(text="<lora:styles/ink_wash_v3:0.8>")
    server.page.get_by_role("button", name="Edit as rows").press("Enter")
    if leave:
        server.page.evaluate(FOCUS_ELSEWHERE)
    server.answer()
    assert server.page.locator(".ws-stack-row").count() == 1
    assert server.page.evaluate(FOCUSED) == focused


@pytest.mark.parametrize(("leave", "focused"), [(True, "elsewhere"), (False, "checkbox")], ids=["gone on", "waiting"])
def test_pasted_rows_that_come_late_take_the_focus_of_nobody_else(
    server: SlowServer, leave: bool, focused: str
) -> None:
    server.add_node()
    server.page.get_by_role("button", name="Add LoRA").press("Enter")
    paste(server.page.get_by_role("combobox", name="Choose a LoRA"), "<lora:styles/linocut:1> <lora:aurora_knight:1>")
    if leave:
        server.page.evaluate(FOCUS_ELSEWHERE)
    server.answer()
    assert server.page.locator(".ws-stack-row").count() == 2
    assert server.page.evaluate(FOCUSED) == focused


def test_a_question_that_failed_is_not_the_last(component: Callable[..., ComponentPage]) -> None:
    seen = component().page.evaluate(
        """async () => {
          const { latest } = await import('/extensions/comfyui-warmstack/lib/latest.js')
          let asked = 0
          const ask = latest(async () => {
            asked += 1
            if (asked === 1) throw new Error('no answer')
            return asked
          })
          const first = [ask().catch(({ message }) => message), ask(), ask()]
          return [...await Promise.all(first), await ask()]
        }"""
    )
    assert seen == ["no answer", 2, 2, 3]
