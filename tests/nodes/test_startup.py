"""The runtime started in a fake ComfyUI: at work while it serves, quiet at the end, soft to fail."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from warmstack.nodes import runtime as runtime_module
from warmstack.nodes.runtime import Runtime, get_runtime
from warmstack.nodes.service import Service
from warmstack.nodes.startup import start

from . import fake_host
from .plain_host import PlainHost, stack_prompt


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, plain: PlainHost) -> AsyncIterator[fake_host.FakeServer]:
    """A fake ComfyUI on the test's loop; the process's runtime is put back afterwards."""
    asyncio.get_running_loop().set_debug(True)
    server = fake_host.FakeServer()
    fake_host.install(monkeypatch, server, plain.folder / "loras", plain.folder / "user")
    monkeypatch.setattr(runtime_module, "_current", runtime_module._Current())
    monkeypatch.setattr("atexit.register", lambda _function: None)
    yield server
    get_runtime().close()


async def _serve(server: fake_host.FakeServer) -> TestClient[Any, Any]:
    server.app.add_routes(server.routes)
    return TestClient(TestServer(server.app))


async def test_started_it_warms_what_the_queue_names(server: fake_host.FakeServer) -> None:
    start()
    async with await _serve(server) as client:
        server.prompt_queue.put(1, "running", stack_prompt("styles/oil"))
        server.prompt_queue.start_next()
        server.prompt_queue.put(2, "next", stack_prompt("styles/ink"))
        server.trigger_on_prompt({"prompt": {}})
        status: dict[str, Any] = {}
        while {row["state"] for row in status.get("adapters", [])} != {"ready"} or len(status["adapters"]) < 2:
            status = await (await client.get("/warmstack/v1/status")).json()
        assert {row["name"] for row in status["adapters"]} == {"styles/ink.safetensors", "styles/oil.safetensors"}
        await _stop()


async def test_pages_hear_of_a_change(server: fake_host.FakeServer) -> None:
    heard: asyncio.Queue[bool] = asyncio.Queue()
    server.send_sync = lambda _event, status, sid=None: heard.put_nowait(status["settings"]["enabled"])
    start()
    async with await _serve(server) as client:
        server.sockets["page"] = object()
        answer = await client.post("/warmstack/v1/settings", json={"enabled": False})
        assert answer.status == 200
        while await asyncio.wait_for(heard.get(), 20):
            """The status from before the change may come first."""
        # Nobody posts this one: it is noticed.
        await asyncio.to_thread(get_runtime().configure, {"enabled": True})
        while not await asyncio.wait_for(heard.get(), 20):
            pass
        await _stop()


async def test_before_serving_nothing_runs(server: fake_host.FakeServer) -> None:
    start()
    await asyncio.sleep(0.01)
    mine = [task for task in asyncio.all_tasks() if task.get_name().startswith("warmstack")]
    assert mine == []


async def test_the_end_of_the_process_stops_every_reader(
    server: fake_host.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", ends.append)
    start()
    (end,) = ends
    assert get_runtime().act("warm", ("oil",))["results"][0]["state"] == "loading"
    end()
    (refused,) = get_runtime().act("warm", ("styles/ink",))["results"]
    assert (refused["state"], refused["reason"]) == ("refused", "the server is going down")


class Broken:
    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("part", ["warmstack.nodes.service.Service", "warmstack.nodes.service.register"])
async def test_a_start_that_fails_says_so_once_and_loads_on_demand(
    server: fake_host.FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    monkeypatch.setattr(part, Broken)
    with caplog.at_level(logging.INFO):
        start()
    assert [record.message for record in caplog.records] == [
        "WarmStack: LoRAs load on demand only, nothing is read ahead: RuntimeError: broken on purpose"
    ]
    runtime = get_runtime()
    runtime.cache.acquire(runtime.catalog.find("oil")).release()


async def test_without_a_server_the_nodes_load_by_themselves(
    server: fake_host.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "server")
    monkeypatch.setitem(sys.modules, "server", None)
    start()
    runtime = get_runtime()
    assert runtime is get_runtime()
    runtime.cache.acquire(runtime.catalog.find("oil")).release()


async def test_a_task_that_dies_says_so_once(
    server: fake_host.FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dies(_self: Runtime) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Runtime, "run", dies)
    start()
    async with await _serve(server) as client:
        await asyncio.sleep(0)
        assert (await client.get("/warmstack/v1/status")).status == 200
        assert "warmstack-prefetch has stopped" in caplog.text
        await _stop()


def test_closing_after_the_loop_has_stopped_ends_the_tasks(plain: PlainHost, caplog: pytest.LogCaptureFixture) -> None:
    """As at Ctrl-C: the loop stands still with our tasks pending, and a request that raises the interrupt again."""
    loop = asyncio.new_event_loop()
    service = Service(Runtime(plain), _Silent())

    async def interrupted() -> None:
        raise KeyboardInterrupt

    loop.run_until_complete(service.run())
    request = loop.create_task(interrupted())
    service.close()
    del request
    assert not [task for task in asyncio.all_tasks(loop) if task.get_name().startswith("warmstack")]
    gc.collect()
    assert caplog.text == ""
    loop.close()


class _Silent:
    """A server that nobody watches."""

    routes = None

    def send(self, *_: object) -> None:
        raise AssertionError("nobody listens")

    def listening(self) -> bool:
        return False

    def on_change(self, *_: object) -> None: ...

    def when_serving(self, *_: object) -> None: ...


async def _stop() -> None:
    mine = [task for task in asyncio.all_tasks() if task.get_name().startswith("warmstack")]
    for task in mine:
        task.cancel()
    await asyncio.gather(*mine, return_exceptions=True)
