"""The panel in a real ComfyUI, with the real prefetcher behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from browser_kit.stub_host import QUIET
from hostkit.graphs import sd15_graph
from hostkit.models import lora_path, write_models
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_lora import write_sd15_lora

if TYPE_CHECKING:
    from browser_kit.opened import Opened
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(
        HostInstall.from_environment() is None, reason="needs a real ComfyUI: set COMFYUI_PATH and COMFYUI_PYTHON"
    ),
]

NAMES = [f"styles/ink{index}.safetensors" for index in range(6)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostServer]:
    base = make_base_directory(tmp_path_factory.mktemp("comfyui"))
    write_models(base, flux=False)
    for seed, name in enumerate(NAMES):
        write_sd15_lora(lora_path(base, name), seed=seed)
    install = HostInstall.from_environment()
    assert install is not None, "the tests are skipped before this"
    with HostServer(install, base) as server:
        server.client.post("/settings", QUIET)
        yield server


@pytest.fixture
def view(browser: Browser, host: HostServer) -> Iterator[Opened]:
    from browser_kit.opened import Opened

    opened = Opened(browser, f"{host.client.url}/")
    opened.boot()
    opened.open_panel()
    yield opened
    faults = opened.faults()
    opened.close()
    assert faults == []


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
    told = [f"{status[kind]} {word}" for kind, word in (("hits", "hit"), ("joins", "joined"), ("misses", "missed"))]
    expect(view.panel.get_by_text(" · ".join(told))).to_be_visible()


def test_warm_pin_and_evict_change_the_server(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    name = NAMES[5]
    row = view.row(name)
    row.get_by_role("button", name="Warm").click()
    expect(row).to_have_attribute("data-state", "ready")
    row.get_by_role("button", name="Pin").click()
    expect(row.get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "true")
    held = {adapter["name"]: adapter for adapter in host.client.get("/warmstack/v1/status")["adapters"]}
    assert held[name]["pinned"] is True
    row.get_by_role("button", name="Pin").click()
    expect(row.get_by_role("button", name="Pin")).to_have_attribute("aria-pressed", "false")
    row.get_by_role("button", name="Evict").click()
    expect(row).not_to_have_attribute("data-state", "ready")
    assert name not in {adapter["name"] for adapter in host.client.get("/warmstack/v1/status")["adapters"]}


def test_the_node_shows_its_report_after_running(host: HostServer, view: Opened) -> None:
    from playwright.sync_api import expect

    graph = sd15_graph([(NAMES[3], 0.5, 0.5)], loader="stack", tag="report")
    view.page.evaluate(
        """async (graph) => {
          const { app } = window.comfyAPI.app
          await app.loadApiJson(graph, 'report')
          await app.queuePrompt(0)
        }""",
        graph,
    )
    lines = view.page.get_by_role("list", name="Last run").get_by_role("listitem")
    expect(lines).to_have_text("ink3: 100% matched, read from disk", timeout=30_000)


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
