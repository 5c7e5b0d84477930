"""docs/api.md tells of every route, with a request and a response, and of every setting; its client is thirty lines."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from warmstack.nodes.routes import ROOT, register
from warmstack.prefetch.settings import ENVIRONMENT, PrefetchSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `((?:GET|POST) /\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))


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
    register(routes, None, lambda _event, _data: None)  # type: ignore[arg-type]
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
    assert set(told.values()) == {field.name for field in dataclasses.fields(PrefetchSettings)}


def test_the_client_is_thirty_lines_of_python() -> None:
    (client,) = re.findall(r"```python\n(.+?)```", PAGE.partition("## A client")[2], re.DOTALL)
    assert len(client.splitlines()) <= 30
    compile(client, "client.py", "exec")
