"""ComfyHost reads the real queue's shape in execution order, and never breaks the host that calls it."""

from __future__ import annotations

import enum
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from .. import fake_host


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> fake_host.FakeServer:
    server = fake_host.FakeServer()
    fake_host.install(monkeypatch, server, tmp_path / "loras", tmp_path / "user")
    return server


@pytest.fixture
async def host(server: fake_host.FakeServer) -> Any:
    from warmstack.nodes.server.host import ComfyHost

    return ComfyHost()


async def test_jobs_come_running_first_then_in_execution_order(server: fake_host.FakeServer, host: Any) -> None:
    queue = server.prompt_queue
    for number, prompt_id in ((5, "e"), (1, "a"), (3, "c"), (-2, "front"), (3, "b"), (4, "d")):
        queue.put(number, prompt_id, {"id": prompt_id})
    queue.start_next()
    jobs = host.queued_jobs()
    assert [(job.job_id, job.running) for job in jobs] == [
        ("front", True), ("a", False), ("b", False), ("c", False), ("d", False), ("e", False),
    ]  # fmt: skip
    assert jobs[1].payload == ({"id": "a"}, ["9"])


async def test_a_prompt_wakes_and_passes_unchanged(server: fake_host.FakeServer, host: Any) -> None:
    woken: list[int] = []
    host.on_change(lambda: woken.append(1), lambda: None)
    body = {"prompt": {}}
    assert server.trigger_on_prompt(body) is body
    assert woken == [1]


async def test_a_prompt_passes_when_waking_fails(server: fake_host.FakeServer, host: Any) -> None:
    def broken() -> None:
        raise RuntimeError("no loop")

    host.on_change(broken, lambda: None)
    body = {"prompt": {}}
    assert server.trigger_on_prompt(body) is body


@pytest.mark.parametrize(
    ("path", "body", "freed"),
    [
        ("/free", b'{"unload_models": true}', 1),
        ("/api/free", b'{"free_memory": true}', 1),
        ("/free", b"{}", 0),
        ("/free", b'{"unload_models": false}', 0),
        ("/free", b"[]", 0),
        ("/free", b"{", 0),
        ("/other", b'{"unload_models": true}', 0),
    ],
)
async def test_freeing_memory_releases(server: Any, host: Any, path: str, body: bytes, freed: int) -> None:
    released: list[int] = []
    host.on_change(lambda: None, lambda: released.append(1))

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    for route in ("/free", "/api/free", "/other"):
        server.app.router.add_post(route, answer)
    async with TestClient(TestServer(server.app)) as client, client.post(path, data=body) as response:
        assert response.status == 200
    assert len(released) == freed


async def test_a_release_that_fails_leaves_the_answer_alone(server: fake_host.FakeServer, host: Any) -> None:
    def broken() -> None:
        raise RuntimeError("nothing to release")

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    host.on_change(lambda: None, broken)
    server.app.router.add_post("/free", answer)
    async with (
        TestClient(TestServer(server.app)) as client,
        client.post("/free", json={"unload_models": True}) as response,
    ):
        assert (response.status, await response.json()) == (200, {"unload_models": True})


async def test_what_is_started_when_serving_waits_for_the_server(server: fake_host.FakeServer, host: Any) -> None:
    started: list[int] = []

    async def start() -> None:
        started.append(1)

    host.when_serving(start)
    assert started == []
    async with TestClient(TestServer(server.app)):
        assert started == [1]


async def test_memory_of_a_machine_without_a_device(host: Any) -> None:
    memory = host.memory()
    assert memory.devices == ()
    assert 2 << 30 <= memory.headroom_bytes <= 10 << 30
    assert 0 < memory.available_bytes <= memory.total_bytes


@pytest.mark.parametrize(
    ("ram_bytes", "expected_bytes"), [(16 << 30, 2 << 30), (50 << 30, 5 << 30), (256 << 30, 10 << 30)]
)
async def test_headroom_is_counted_as_the_host_counts_it(
    host: Any, monkeypatch: pytest.MonkeyPatch, ram_bytes: int, expected_bytes: int
) -> None:
    memory = types.SimpleNamespace(total=ram_bytes, available=1 << 30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert host.headroom_bytes() == host.memory().headroom_bytes == expected_bytes


async def test_headroom_that_a_prompt_asked_for_holds_after_it(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for asked_bytes in (3 << 30, 0):
        monkeypatch.setattr(sys.modules["comfy.memory_management"], "RAM_CACHE_HEADROOM", asked_bytes)
        assert host.headroom_bytes() == host.memory().headroom_bytes == 3 << 30


@pytest.mark.parametrize(
    ("device", "aimdo", "streams", "reason"),
    [
        ("cpu", False, 2, "the host computes on cpu, where adapters already are"),
        ("mps", False, 0, "the host computes on mps, where adapters already are"),
        ("cuda", True, 2, "the host brings patches to the device itself (dynamic VRAM)"),
        ("cuda", False, 2, "the host brings patches to the device itself (async offload)"),
        ("cuda", False, 0, "the host's account of device memory would not see them"),
    ],
)
async def test_adapters_stay_off_the_device_for_a_reason(
    host: Any, monkeypatch: pytest.MonkeyPatch, device: str, aimdo: bool, streams: int, reason: str
) -> None:
    import comfy

    place = types.SimpleNamespace(type=device)
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: place)
    monkeypatch.setattr(comfy.model_management, "NUM_STREAMS", streams, raising=False)
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", aimdo, raising=False)
    assert host.device_tier_refusal() == reason


@pytest.mark.parametrize(
    ("nodes", "progress"),
    [
        ([], None),
        ([("finished", 20, 20), ("running", 5, 20)], 0.25),
        ([("running", 0, 1)], None),
        ([("finished", 20, 20)], None),
        ([("running", 5, 20), ("pending", 0, 1)], 0.25),
        ([("running", 21, 20)], 1.0),
    ],
)
async def test_the_steps_of_the_running_node_are_read_from_the_hosts_own_record(
    host: Any, monkeypatch: pytest.MonkeyPatch, nodes: list[tuple[str, float, float]], progress: float | None
) -> None:
    state = enum.Enum("NodeState", {"Pending": "pending", "Running": "running", "Finished": "finished"})
    record = {
        str(i): {"state": state(name), "value": value, "max": most} for i, (name, value, most) in enumerate(nodes)
    }
    module = types.ModuleType("comfy_execution.progress")
    module.__dict__.update(NodeState=state, global_progress_registry=types.SimpleNamespace(nodes=record))
    package = types.ModuleType("comfy_execution")
    package.__dict__.update(progress=module)
    monkeypatch.setitem(sys.modules, "comfy_execution", package)
    monkeypatch.setitem(sys.modules, "comfy_execution.progress", module)
    assert host.step_progress() == progress
    module.__dict__.update(global_progress_registry=None)
    assert host.step_progress() is None, "before the first job there is no record, and none is made"
