"""docs/api.md tells of every route, with a request and a response, and of every setting; its client is thirty lines."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.tracking import StrategySummary
from warmstack.lora.cache.cache_stats import AdapterView, CacheSnapshot, CacheStats
from warmstack.lora.library.file import AdapterKey
from warmstack.nodes.api.routes import ROOT, register
from warmstack.nodes.api.status_json import Moment, status_json
from warmstack.nodes.server.memory_state import DeviceMemory, MemoryState
from warmstack.prefetch.settings import ENVIRONMENT, PrefetchSettings
from warmstack.prefetch.status import (
    AdapterStatus,
    FetchStatus,
    JobRecord,
    JobStatus,
    ModelStatus,
    PageStatus,
    PrefetchStatus,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `((?:GET|POST) /\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))

SOME = (".settings.",)
"""Parts of which the page shows an extract; there is a table of them further down."""


class Routes:
    """Remembers what is registered."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def get(self, path: str) -> Any:
        self.names.append(f"GET {path.removeprefix(ROOT)}")
        return lambda handler: handler

    def post(self, path: str) -> Any:
        self.names.append(f"POST {path.removeprefix(ROOT)}")
        return lambda handler: handler


def test_every_route_has_its_section() -> None:
    routes = Routes()
    register(routes, None, lambda _event, _data: None)
    assert sorted(SECTIONS) == sorted(routes.names)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_shows_what_is_sent_and_what_is_answered(name: str) -> None:
    blocks = re.findall(r"```(json|text)\n(.+?)```", SECTIONS[name], re.DOTALL)
    assert len(blocks) == (2 if name.startswith("POST") else 1)
    for kind, block in blocks:
        assert kind == "text" or isinstance(json.loads(block), dict)


def test_every_setting_is_explained_with_its_variable() -> None:
    rows = [line for line in SECTIONS["POST /settings"].splitlines() if line.startswith("| `")]
    named = [re.findall(r"`(\w+)`", cell) for row in rows for cell in row.split("|")[1:3]]
    told = dict(pair for names, variables in zip(named[::2], named[1::2], strict=True)
                for pair in zip(variables, names, strict=True))  # fmt: skip
    assert told == dict(ENVIRONMENT)
    assert sum(len(names) for names in named[::2]) == len(told)
    assert set(told.values()) == {field.name for field in dataclasses.fields(PrefetchSettings)}


def test_the_status_shows_every_field_that_there_is() -> None:
    """And none that there is not."""
    (block,) = re.findall(r"```json\n(.+?)```", SECTIONS["GET /status"], re.DOTALL)
    shown, real = set(fields(json.loads(block))), set(fields(full_status()))
    assert {path for path in shown if not path.startswith(SOME)} == {path for path in real if not path.startswith(SOME)}
    assert {path for path in shown if path.startswith(SOME)} <= real


def test_the_client_is_thirty_lines_of_python() -> None:
    (client,) = re.findall(r"```python\n(.+?)```", PAGE.partition("## A client")[2], re.DOTALL)
    assert len(client.splitlines()) <= 30
    compile(client, "client.py", "exec")


def full_status() -> dict[str, Any]:
    """A status with one of everything."""
    key = AdapterKey("/loras/ink.safetensors", 5, 1)
    stats = CacheStats(1, 0, 0, 0.0, 1.0, 5, 5, 0, 0, {"demand": 4})
    adapter = AdapterView(key, "ink.safetensors", 5, "ready", pinned=False, next_use=1)
    prefetch = PrefetchStatus(
        revision=1,
        enabled=True,
        hits=1,
        joins=0,
        misses=0,
        wait_s=0.0,
        load_s=1.0,
        hidden_share=1.0,
        wasted_bytes=0,
        page=PageStatus(),
        under_pressure=False,
        in_flight=(FetchStatus("ink.safetensors", "resident", 0, 5),),
        queued_jobs=1,
        queue=(
            JobStatus(
                "1",
                True,
                (AdapterStatus("ink.safetensors", "ready", "resident", 5),),
                (ModelStatus("base.safetensors", "checkpoints", "in_use", 7),),
            ),
        ),
        history=(JobRecord("0", 1.0, 1, 0, 0, 0.0, 1.0, 0, 0, 0),),
    )
    moment = Moment(
        prefetch=prefetch,
        cache=CacheSnapshot(1, 10, 5, 5, (adapter,), stats),
        catalog_revision=1,
        catalog_files=1,
        settings=PrefetchSettings().as_json(),
        memory=MemoryState(4, 3, 2, 1, (DeviceMemory("cuda:0", 2, 1),)),
        now_s=2.0,
        loads={"fast_single_file": StrategySummary(1, 7, 0.1, 7, {"header": 0.1, "read": 0.1, "place": 0.1})},
    )
    return status_json(moment, "boot", 1, lambda name: None)


def fields(value: object, at: str = "") -> Iterator[str]:
    """Paths of all keys; a list is as its first item."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{at}.{key}"
            yield from fields(inner, f"{at}.{key}")
    elif isinstance(value, list) and value:
        yield from fields(value[0], f"{at}[]")
