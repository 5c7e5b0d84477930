"""The routes refuse what they should, in one shape, and hand the rest on unchanged."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from warmstack.nodes.api.adapter_query import AdapterQuery
from warmstack.nodes.api.request_body import MAX_BODY_BYTES, MAX_NAMES, RequestError
from warmstack.nodes.api.routes import register


class RecordingBackend:
    """Remembers what it was asked; fails on demand."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None

    def status(self) -> Mapping[str, object]:
        return {"schema": 1, "revision": len(self.calls)}

    def metrics(self) -> str:
        return "warmstack_hits 1\n"

    def plan(self, prompt: Mapping[str, Any], outputs: tuple[str, ...] | None) -> Mapping[str, object]:
        return self._record("plan", prompt, outputs)

    def adapters(self, query: AdapterQuery) -> Mapping[str, object]:
        return self._record("adapters", query)

    def base_model(self, kind: str, name: str) -> Mapping[str, object]:
        return self._record("base_model", kind, name)

    def act(self, verb: str, names: tuple[str, ...] | None) -> Mapping[str, object]:
        return self._record(verb, names)

    def configure(self, changes: Mapping[str, Any]) -> Mapping[str, object]:
        return self._record("configure", dict(changes))

    def _record(self, *call: Any) -> Mapping[str, object]:
        if self.failure is not None:
            raise self.failure
        self.calls.append(call)
        return {"did": call[0]}


@pytest.fixture
def backend() -> RecordingBackend:
    return RecordingBackend()


@pytest.fixture
def sent() -> list[tuple[str, Mapping[str, Any]]]:
    return []


@pytest.fixture
async def client(backend: RecordingBackend, sent: list[Any]) -> AsyncIterator[TestClient[Any, Any]]:
    routes = web.RouteTableDef()
    register(routes, backend, lambda event, payload: sent.append((event, payload)))
    app = web.Application()
    app.add_routes(routes)
    asyncio.get_running_loop().set_debug(True)
    async with TestClient(TestServer(app)) as client:
        yield client


GOOD_POSTS = [
    ("plan", {"prompt": {"1": {}}}, ("plan", {"1": {}}, None)),
    ("plan", {"prompt": {"1": {}}, "outputs": ["9"]}, ("plan", {"1": {}}, ("9",))),
    ("warm", {"names": ["a", "b", "a"]}, ("warm", ("a", "b"))),
    ("evict", {"names": ["a"]}, ("evict", ("a",))),
    ("evict", {"unpinned": True}, ("evict", None)),
    ("pin", {"names": ["a"]}, ("pin", ("a",))),
    ("pin", {"names": ["a"], "pinned": False}, ("unpin", ("a",))),
    ("settings", {"enabled": False}, ("configure", {"enabled": False})),
]


@pytest.mark.parametrize(("route", "body", "call"), GOOD_POSTS)
async def test_a_good_request_reaches_the_backend(client: Any, backend: Any, route: str, body: Any, call: Any) -> None:
    async with client.post(f"/warmstack/v1/{route}", json=body) as response:
        assert response.status == 200
        assert await response.json() == {"did": call[0]}
    assert backend.calls == [call]


async def test_metrics_are_text_for_a_scraper(client: Any) -> None:
    async with client.get("/warmstack/v1/metrics") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert await response.text() == "warmstack_hits 1\n"


BAD_BODIES = [
    ("plan", {}, "no_prompt"),
    ("plan", {"prompt": []}, "no_prompt"),
    ("plan", {"prompt": {}, "outputs": "9"}, "invalid_body"),
    ("plan", [1], "invalid_body"),
    ("warm", {}, "invalid_names"),
    ("warm", {"names": []}, "invalid_names"),
    ("warm", {"names": [1]}, "invalid_names"),
    ("warm", {"names": [""]}, "invalid_names"),
    ("warm", {"names": ["x" * 2000]}, "invalid_names"),
    ("warm", {"names": [str(n) for n in range(MAX_NAMES + 1)]}, "invalid_names"),
    ("warm", {"name": "a"}, "unknown_key"),
    ("evict", {"unpinned": 1}, "invalid_body"),
    ("pin", {"names": ["a"], "pinned": "no"}, "invalid_body"),
    ("settings", 3, "invalid_body"),
]


@pytest.mark.parametrize(("route", "body", "kind"), BAD_BODIES)
async def test_a_bad_body_is_refused_before_the_backend(
    client: Any, backend: Any, sent: list[Any], route: str, body: Any, kind: str
) -> None:
    async with client.post(f"/warmstack/v1/{route}", json=body) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["type"] == kind
    assert error["message"]
    assert backend.calls == sent == []


@pytest.mark.parametrize("route", ["plan", "warm", "evict", "pin", "settings"])
async def test_posts_want_bounded_json(client: Any, backend: Any, route: str) -> None:
    url = f"/warmstack/v1/{route}"
    async with client.post(url, data=b'{"names": ["a"]}', headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    async with client.post(url, data=b"{", headers={"Content-Type": "application/json"}) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (400, "invalid_json")
    deep = b"[" * 100_000
    async with client.post(url, data=deep, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
    assert backend.calls == []


async def test_a_body_that_is_too_large_is_not_parsed(client: Any, backend: Any) -> None:
    body = json.dumps({"names": ["a"], "x": "y" * MAX_BODY_BYTES}).encode()
    async with client.post("/warmstack/v1/warm", data=body, headers={"Content-Type": "application/json"}) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (413, "too_large")
    assert backend.calls == []


async def test_a_change_is_pushed_and_a_question_is_not(client: Any, sent: list[Any]) -> None:
    await (await client.get("/warmstack/v1/status")).json()
    await (await client.get("/warmstack/v1/adapters")).json()
    await (await client.post("/warmstack/v1/plan", json={"prompt": {}})).json()
    assert sent == []
    await (await client.post("/warmstack/v1/pin", json={"names": ["a"]})).json()
    assert [event for event, _ in sent] == ["warmstack.status"]


async def test_filters_are_parsed_and_bounded(client: Any, backend: Any) -> None:
    query = {"category": "styles", "base_model": "sdxl", "search": "ink", "state": "ready"}
    query |= {"sort": "-size", "offset": "20", "limit": "5"}
    await client.get("/warmstack/v1/adapters", params=query)
    assert backend.calls == [("adapters", AdapterQuery("styles", "sdxl", "ink", "ready", "size", True, 20, 5))]
    bad_queries = ["limit=0", "limit=1001", "offset=-1", "offset=\u0661", "sort=path", "state=x", "path=/etc"]
    for bad in bad_queries:
        async with client.get(f"/warmstack/v1/adapters?{bad}") as response:
            assert response.status == 400, bad
    assert len(backend.calls) == 1


async def test_a_model_is_asked_about_by_kind_and_name(client: Any, backend: Any) -> None:
    async with client.get("/warmstack/v1/base_model", params={"kind": "checkpoints", "name": "xl/a.gguf"}) as response:
        assert (response.status, await response.json()) == (200, {"did": "base_model"})
    assert backend.calls == [("base_model", "checkpoints", "xl/a.gguf")]
    for bad in ["", "kind=checkpoints", "name=a", "kind=loras&name=a", "kind=checkpoints&name=a&path=b"]:
        async with client.get(f"/warmstack/v1/base_model?{bad}") as response:
            assert response.status == 400, bad
    async with client.get(f"/warmstack/v1/base_model?kind=checkpoints&name={'x' * 2000}") as response:
        assert response.status == 400
    assert len(backend.calls) == 1


async def test_refusals_of_the_backend_keep_their_kind(client: Any, backend: Any) -> None:
    backend.failure = RequestError("invalid_setting", "no setting 'x'")
    async with client.post("/warmstack/v1/settings", json={"x": 1}) as response:
        assert response.status == 400
        assert await response.json() == {"error": {"type": "invalid_setting", "message": "no setting 'x'"}}


async def test_a_bug_of_ours_leaks_no_path(client: Any, backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend.failure = OSError(13, "denied", "/home/someone/models/loras/a.safetensors")
    async with client.post("/warmstack/v1/warm", json={"names": ["a"]}) as response:
        assert response.status == 500
        assert "/home" not in await response.text()
    assert "/warmstack/v1/warm failed" in caplog.text


async def test_a_share_that_is_gone_stops_neither_the_status_nor_anybody_else(
    backend: RecordingBackend, client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, is_back = threading.Event(), threading.Event()

    def hang(_query: AdapterQuery) -> Mapping[str, object]:
        asked.set()
        is_back.wait(60)
        return {}

    async def go_on() -> None:
        await asyncio.to_thread(asked.wait, 30)
        for _ in range(2):
            assert (await client.get("/warmstack/v1/status")).status == 200
            assert (await client.post("/warmstack/v1/settings", json={"enabled": False})).status == 200
            assert await asyncio.to_thread(lambda: "another pack") == "another pack"

    monkeypatch.setattr(backend, "adapters", hang)
    # More than the loop has threads.
    hanging = [asyncio.create_task(client.get("/warmstack/v1/adapters")) for _ in range(40)]
    try:
        await asyncio.wait_for(go_on(), 30)
    finally:
        is_back.set()
    assert {(await task).status for task in hanging} == {200}
