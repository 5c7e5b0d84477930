"""The routes and the event on the real server, and validation through POST /prompt."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from copy import deepcopy
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hostkit.client import HostClient, HostRequestError
from hostkit.graphs import digest_graph, flux_graph, sd15_graph
from hostkit.server import HostServer

ROOT = "/warmstack/v1"


def test_the_catalog_has_exactly_the_names_of_the_host(client: HostClient) -> None:
    page = client.get(f"{ROOT}/adapters?limit=1000")
    assert sorted(row["name"] for row in page["adapters"]) == sorted(client.get("/models/loras"))
    assert page["total"] == len(page["adapters"]) > 5


def test_routes_answer_with_and_without_the_api_prefix(client: HostClient) -> None:
    for prefix in ("", "/api"):
        assert client.get(f"{prefix}{ROOT}/status")["schema"] == 1


def test_the_status_has_what_clients_rely_on(client: HostClient, host_base: Path) -> None:
    client.run(flux_graph([("flux/native2.safetensors", 1.0, 0.0)], loader="stack", tag="status"))
    status = client.get(f"{ROOT}/status")
    wanted = {"enabled", "hits", "joins", "misses", "wait_s", "load_s", "hidden_share", "wasted_bytes"}
    assert wanted <= set(status["prefetch"])
    assert {"limit_bytes", "used_bytes", "peak_bytes"} <= set(status["budget"])
    assert {"schema", "boot", "revision", "adapters", "queue", "memory"} <= set(status)
    assert status["budget"]["used_bytes"] <= status["budget"]["peak_bytes"] <= status["budget"]["limit_bytes"]
    assert "flux/native2.safetensors" in {row["name"] for row in status["adapters"]}
    assert str(host_base) not in json.dumps(status)


def test_the_metrics_are_for_a_scraper(client: HostClient) -> None:
    with urllib.request.urlopen(f"{client.url}{ROOT}/metrics") as answer:
        assert answer.headers.get_content_type() == "text/plain"
        assert "warmstack_" in answer.read().decode()


def test_a_status_that_is_only_read_stays_the_same(client: HostClient) -> None:
    first = client.get(f"{ROOT}/status")
    assert {client.get(f"{ROOT}/status")["revision"] for _ in range(5)} <= {first["revision"], first["revision"] + 1}


def test_a_plan_tells_found_ambiguous_missing_and_unknown(client: HostClient, host_base: Path) -> None:
    rows = [("ink", 1.0, 1.0), ("styles/oil.safetensors", 1.0, 1.0), ("nowhere", 1.0, 1.0)]
    plan = client.post(f"{ROOT}/plan", {"prompt": sd15_graph(rows, loader="stack")})
    by_name = {lora["name"]: lora for lora in plan["loras"]}
    assert {name: lora["state"] for name, lora in by_name.items()} == {
        "ink": "ambiguous", "styles/oil.safetensors": "found", "nowhere": "missing",
    }  # fmt: skip
    assert set(by_name["ink"]["candidates"]) == {"styles/ink.safetensors", "other/ink.safetensors"}
    assert by_name["styles/oil.safetensors"]["tier"] == "resident"
    assert by_name["styles/oil.safetensors"]["bytes"] > 1_000_000
    stock = client.post(f"{ROOT}/plan", {"prompt": sd15_graph(rows[1:2])})
    assert stock["loras"][0]["tier"] == "page"
    assert str(host_base) not in json.dumps([plan, stock])


def test_a_plan_has_the_strengths_of_the_run(client: HostClient) -> None:
    request = {"lora": {"category_weights": {"styles": 0.3, "characters": 0}, "models": [["oil", 0.7, 0.1], "mira"]}}
    graph = digest_graph(sd15_graph([("x", 1.0, 1.0)], loader="stack"), clip=True)
    graph["stack"]["inputs"]["loras"] = json.dumps(request)
    planned = client.post(f"{ROOT}/plan", {"prompt": graph})["loras"]
    assert [row["file"] for row in planned] == ["styles/oil.safetensors"]
    as_planned = deepcopy(graph)
    as_planned["stack"]["inputs"]["loras"] = json.dumps(
        [[row["file"], row["strength_model"], row["strength_clip"]] for row in planned]
    )
    asked, told = client.run(graph, as_planned)
    assert [told.output(part) for part in ("model", "clip")] == [asked.output(part) for part in ("model", "clip")]


def test_warm_pin_and_evict(client: HostClient) -> None:
    name = "characters/mira.safetensors"
    client.post(f"{ROOT}/pin", {"names": [name]})
    # Until its thread has begun the read, it is what it was.
    while _row(client, name)["state"] in ("cold", "page", "loading"):
        pass
    assert _row(client, name)["state"] == "ready"
    assert client.post(f"{ROOT}/evict", {"names": [name]})["results"][0]["reason"] == "pinned"
    client.post(f"{ROOT}/pin", {"names": [name], "pinned": False})
    assert client.post(f"{ROOT}/evict", {"names": [name]})["results"][0]["state"] == "cold"
    assert _row(client, name)["state"] in ("page", "cold")


def test_settings_are_applied_kept_and_refused(client: HostClient, host_base: Path) -> None:
    with pytest.raises(HostRequestError) as refused:
        client.post(f"{ROOT}/settings", {"budget_bytes": -1})
    assert (refused.value.status, refused.value.body["error"]["type"]) == (400, "invalid_setting")
    try:
        assert client.post(f"{ROOT}/settings", {"enabled": False})["kept"]
        assert not client.get(f"{ROOT}/status")["settings"]["enabled"]
        kept = json.loads((host_base / "user/__warmstack/settings.json").read_text())
        assert kept["enabled"] is False
    finally:
        client.post(f"{ROOT}/settings", {"enabled": True})


def test_posts_want_json(client: HostClient, host: HostServer) -> None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"{client.url}{ROOT}/evict", b'{"unpinned": true}', {"Content-Type": "text/plain"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 415
    refused.value.close()


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("styles/inkk", ["styles/ink.safetensors"]),
        ("ink", ["styles/ink.safetensors", "other/ink.safetensors"]),
        ("../../secret", []),
    ],
)
def test_a_bad_name_is_refused_before_the_queue_with_its_candidates(
    client: HostClient, name: str, candidates: list[str]
) -> None:
    with pytest.raises(HostRequestError) as refused:
        client.queue(flux_graph([(name, 1.0, 0.0)], loader="stack"))
    text = json.dumps(refused.value.body)
    assert refused.value.status == 400
    assert name in text
    assert all(candidate in text for candidate in candidates)


async def test_open_pages_are_told_of_changes_once(client: HostClient) -> None:
    events: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(client.url.replace("http", "ws") + "/ws?clientId=page") as socket,
    ):
        loras = [("flux/native3.safetensors", 1.0, 0.0)]
        await asyncio.to_thread(client.run, flux_graph(loras, loader="stack", tag="event", hold_s=1.5))
        async with asyncio.timeout(20):
            while not any("flux/native3.safetensors" in _names(event) for event in events):
                message = await socket.receive_json()
                if message["type"] == "warmstack.status":
                    events.append(message["data"])
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(set(revisions))
    assert {event["boot"] for event in events} == {client.get(f"{ROOT}/status")["boot"]}


def _names(status: dict[str, Any]) -> set[str]:
    return {row["name"] for row in status["adapters"]}


def _row(client: HostClient, name: str) -> dict[str, Any]:
    row: dict[str, Any] = client.get(f"{ROOT}/adapters?search={name}")["adapters"][0]
    return row
