"""The runtime on the real catalog, cache and prefetcher, behind a fake host: complete, persistent, and soft to fail."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer
from safetensors.torch import save_file

from warmstack.loaders import LoadingMetrics
from warmstack.nodes import runtime as runtime_module
from warmstack.nodes.memory_state import MemoryState
from warmstack.nodes.request_body import RequestError
from warmstack.nodes.runtime import Runtime, get_runtime
from warmstack.nodes.service import Service
from warmstack.nodes.startup import start
from warmstack.prefetch.queue.job import QueuedJob

from . import fake_host


def write_lora(folder: Path, name: str, rank: int = 4) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"m.lora_A.weight": torch.ones(rank, 64), "m.lora_B.weight": torch.ones(64, rank)}
    save_file(tensors, path)


def stack_prompt(*names: str) -> dict[str, Any]:
    rows = json.dumps([{"name": name, "strength_model": 1.0} for name in names])
    return {
        "1": {"class_type": "WarmStackLoadLoraStack", "inputs": {"model": ["0", 0], "loras": rows}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }


class PlainHost:
    """`Host` without a server; memory fails when asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: tuple[QueuedJob, ...] = ()
        self.state: Callable[[], Path | None] = lambda: folder / "state"
        self.memory_fails = False

    def lora_folders(self) -> tuple[str, ...]:
        return (str(self.folder / "loras"), str(self.folder / "not there"))

    def state_directory(self) -> Path | None:
        return self.state()

    def model_folders(self, kind: str) -> tuple[str, ...]:
        return (str(self.folder / kind),)

    def queued_jobs(self) -> tuple[QueuedJob, ...]:
        return self.jobs

    def memory(self) -> MemoryState:
        if self.memory_fails:
            raise OSError("no /proc")
        return MemoryState(64 << 30, 32 << 30, 8 << 30, 6 << 30)

    def step_progress(self) -> float | None:
        if self.memory_fails:
            raise ImportError("an older host")
        return 0.25

    def device_tier_refusal(self) -> str:
        if self.memory_fails:
            raise RuntimeError("no driver")
        return "the host brings patches to the device itself (dynamic VRAM)"


@pytest.fixture
def plain(tmp_path: Path) -> PlainHost:
    for name in ("styles/ink.safetensors", "styles/oil.safetensors", "other/ink.safetensors"):
        write_lora(tmp_path / "loras", name)
    return PlainHost(tmp_path)


def test_a_runtime_that_never_ran_still_finds_and_loads(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    with runtime.cache.acquire(runtime.catalog.find("oil")) as lease:
        assert lease.outcome == "miss"
    assert runtime.status()["adapters"][0]["name"] == "styles/oil.safetensors"
    runtime.close()


def test_the_revision_grows_with_events_and_with_nothing_else(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    runtime.catalog.refresh()
    first = runtime.status()
    assert runtime.revision() == runtime.status()["revision"] == first["revision"]
    lease = runtime.cache.acquire(runtime.catalog.find("oil"))
    loaded = runtime.status()
    assert loaded["revision"] > first["revision"]
    lease.release()
    assert runtime.status()["revision"] > loaded["revision"]
    before = runtime.revision()
    runtime.configure({"depth_jobs": 3})
    assert runtime.revision() > before
    assert {runtime.status()["boot"], runtime.status()["boot"]} == {first["boot"]}
    assert Runtime(plain).status()["boot"] != first["boot"]
    runtime.close()


def test_what_the_model_loaders_did_stands_in_the_status(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    assert runtime.status()["loads"] == {}
    before = runtime.revision()
    for seconds in (1.0, 3.0):
        runtime.loads.record(LoadingMetrics("parallel", 2, 400, 1000, 1500, seconds))
    assert runtime.status()["loads"] == {
        "parallel": {"loads": 2, "loaded_bytes": 2000, "median_s": 2.0, "peak_bytes": 1500}
    }
    assert runtime.revision() > before
    runtime.close()


def test_no_path_leaves_in_a_status_a_plan_or_a_page(plain: PlainHost, tmp_path: Path) -> None:
    from warmstack.nodes.adapter_query import AdapterQuery

    runtime = Runtime(plain)
    (tmp_path / "loras" / "broken.safetensors").write_bytes(b"\xff" * 100)
    runtime.catalog.refresh()
    lease = runtime.cache.acquire(runtime.catalog.find("oil"))
    answers = [
        runtime.status(),
        runtime.adapters(AdapterQuery()),
        runtime.plan(stack_prompt("oil", "ink", "gone", "broken")),
        runtime.act("warm", ("oil", "broken", "gone")),
    ]
    assert str(tmp_path) not in json.dumps(answers)
    lease.release()
    runtime.close()


def test_a_model_file_tells_its_base_model_and_no_path(plain: PlainHost, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "xl"
    folder.mkdir(parents=True)
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({key: torch.zeros(1, 2048)}, folder / "base.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "outside.safetensors").write_bytes((folder / "base.safetensors").read_bytes())
    runtime = Runtime(plain)
    assert runtime.base_model("checkpoints", "xl/base.safetensors")["base_model"] == "sdxl"
    for kind, name, status in [
        ("checkpoints", "xl/broken.safetensors", 400),
        ("checkpoints", "../outside.safetensors", 404),
        ("checkpoints", str(tmp_path / "outside.safetensors"), 404),
        ("diffusion_models", "xl/base.safetensors", 404),
    ]:
        with pytest.raises(RequestError) as refused:
            runtime.base_model(kind, name)
        assert refused.value.status == status
        assert str(tmp_path) not in str(refused.value).replace(name, "")
    runtime.close()


def test_settings_survive_a_restart_and_win_over_the_environment(
    plain: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMSTACK_CONCURRENCY", "4")
    monkeypatch.setenv("WARMSTACK_PREFETCH", "on")
    runtime = Runtime(plain)
    assert runtime.configure({"enabled": False, "budget_bytes": 1000})["kept"]
    again = Runtime(plain)
    assert (again.settings.enabled, again.settings.budget_bytes, again.settings.concurrency) == (False, 1000, 4)
    assert again.cache.snapshot().limit_bytes == 1000
    for one in (runtime, again):
        one.close()


def test_a_refused_setting_changes_nothing(plain: PlainHost) -> None:
    from warmstack.nodes.request_body import RequestError

    runtime = Runtime(plain)
    before = runtime.settings
    for changes in ({"budget_bytes": -1}, {"colour": 1}, {"enabled": False, "concurrency": 0}):
        with pytest.raises(RequestError):
            runtime.configure(changes)
    assert runtime.settings == before
    assert not (plain.folder / "state" / "settings.json").exists()
    runtime.close()


def test_ours_yields_memory_before_the_host_does(plain: PlainHost, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(plain)
    assert runtime.settings.headroom_bytes == 6 << 30
    monkeypatch.setenv("WARMSTACK_HEADROOM", "3G")
    told = Runtime(plain)
    assert told.settings.headroom_bytes == 3 << 30
    for one in (runtime, told):
        one.close()


def test_a_host_without_memory_or_state_is_enough(plain: PlainHost) -> None:
    def refuse() -> Path:
        raise PermissionError("read-only")

    plain.state, plain.memory_fails = refuse, True
    runtime = Runtime(plain)
    assert runtime.status()["memory"] == {}
    assert runtime.configure({"enabled": False}) == {"settings": runtime.settings.as_json(), "kept": False}
    runtime.cache.acquire(runtime.catalog.find("oil")).release()
    runtime.close()


def test_releasing_drops_what_nobody_uses(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    held = runtime.cache.acquire(runtime.catalog.find("oil"))
    runtime.cache.acquire(runtime.catalog.find("styles/ink")).release()
    runtime.release()
    snapshot = runtime.cache.snapshot()
    assert [view.name for view in snapshot.adapters] == ["styles/oil.safetensors"]
    held.release()
    del held
    assert runtime.cache.snapshot().used_bytes == 0
    runtime.close()


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


@pytest.mark.parametrize(
    ("memory_fails", "problem"),
    [
        (False, "the host brings patches to the device itself (dynamic VRAM)"),
        (True, "the host does not tell how it uses its device"),
    ],
)
def test_the_status_says_why_nothing_is_kept_on_the_device(plain: PlainHost, memory_fails: bool, problem: str) -> None:
    plain.memory_fails = memory_fails
    runtime = Runtime(plain)
    runtime.configure({"device_tier": True})
    device = runtime.status()["prefetch"]["device"]
    assert (device["state"], device["problem"]) == ("refused", problem)
    runtime.close()


def test_the_steps_of_the_host_reach_the_prefetcher_and_a_host_without_them_costs_only_this(plain: PlainHost) -> None:
    machine = Runtime(plain).prefetcher._machine
    assert (machine.progress(), machine.state_folder) == (0.25, plain.folder / "state")
    plain.memory_fails = True
    assert machine.progress() is None
