"""As much of ComfyUI's server module as nodes/server/host.py touches, with its queue order and message shapes."""

from __future__ import annotations

import asyncio
import heapq
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web


class FakeQueue:
    def __init__(self) -> None:
        self.pending: list[tuple[Any, ...]] = []
        self.running: list[tuple[Any, ...]] = []

    def put(self, number: float, prompt_id: str, prompt: dict[str, Any], outputs: tuple[str, ...] = ("9",)) -> None:
        heapq.heappush(self.pending, (number, prompt_id, prompt, {"client_id": "c"}, list(outputs), Secret()))

    def start_next(self) -> None:
        self.running.append(heapq.heappop(self.pending))

    def get_current_queue_volatile(self) -> tuple[list[Any], list[Any]]:
        return list(self.running), list(self.pending)


class Secret:
    """Index 5 of a queue item: whoever looks at it fails the test."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the secrets of a queue item were read ({name})")

    __repr__ = __str__ = __getattribute__  # type: ignore[assignment]


class FakeServer:
    """PromptServer.instance."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.prompt_queue = FakeQueue()
        self.routes = web.RouteTableDef()
        self.app = web.Application()
        self.sockets: dict[str, object] = {}
        self.sent: list[tuple[str, Any]] = []
        self.handlers: list[Any] = []

    def add_on_prompt_handler(self, handler: Any) -> None:
        self.handlers.append(handler)

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.sent.append((event, data))

    def trigger_on_prompt(self, body: Any) -> Any:
        for handler in self.handlers:
            body = handler(body)
        return body


def install(monkeypatch: pytest.MonkeyPatch, server: FakeServer, loras: Path, state: Path) -> None:
    """Put the fakes where nodes/server/host.py imports the host from."""
    monkeypatch.delitem(sys.modules, "warmstack.nodes.server.host", raising=False)
    monkeypatch.setitem(sys.modules, "server", _module("server", PromptServer=types.SimpleNamespace(instance=server)))
    folders = _module(
        "folder_paths",
        get_folder_paths=lambda kind: [str(loras)] if kind == "loras" else [],
        get_system_user_directory=lambda name: str(state / f"__{name}"),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    memory = _module("comfy.memory_management", RAM_CACHE_HEADROOM=0)
    device = types.SimpleNamespace(type="cpu")
    models = _module("comfy.model_management", get_torch_device=lambda: device)
    comfy = _module("comfy", memory_management=memory, model_management=models)
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.memory_management", memory)
    monkeypatch.setitem(sys.modules, "comfy.model_management", models)


def _module(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(attributes)
    return module
