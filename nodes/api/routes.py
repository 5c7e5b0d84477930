"""The HTTP routes under /warmstack/v1/: forms are checked here, everything else is the backend's."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from ...prefetch.reports.prometheus import CONTENT_TYPE
from ..server.off_loop import ask, ask_disk
from .adapter_query import AdapterQuery, parse_query
from .request_body import MAX_PROMPT_BODY_BYTES, RequestError, flag_in, model_in, names_in, only, read_object

logger = logging.getLogger("warmstack")

ROOT = "/warmstack/v1"
STATUS_EVENT = "warmstack.status"

Handler = Callable[[web.Request], Awaitable[web.Response]]
Answer = Mapping[str, object]
Send = Callable[[str, Answer], None]


class Backend(Protocol):
    """What the routes need. Blocking and thread-safe; every answer is JSON-able and holds names, never paths. Raises
    RequestError."""

    def status(self) -> Answer: ...

    def metrics(self) -> str: ...

    def plan(self, prompt: Mapping[str, Any], outputs: tuple[str, ...] | None) -> Answer: ...

    def adapters(self, query: AdapterQuery) -> Answer: ...

    def base_model(self, kind: str, name: str) -> Answer:
        """Of the model file `name`; `kind` is checkpoints or diffusion_models."""

    def act(self, verb: str, names: tuple[str, ...] | None) -> Answer:
        """`verb` is warm, evict, pin or unpin; `names` None means every unpinned adapter (evict only)."""

    def configure(self, changes: Mapping[str, Any]) -> Answer: ...


def register(routes: Any, backend: Backend, send: Send) -> None:
    """Add the routes to `routes` (a RouteTableDef, or whatever has its `get` and `post`). `send` pushes the status
    after a change."""
    handlers = _Handlers(backend, send)
    routes.get(f"{ROOT}/status")(_guarded(handlers.status))
    routes.get(f"{ROOT}/metrics")(_guarded(handlers.metrics))
    routes.get(f"{ROOT}/adapters")(_guarded(handlers.adapters))
    routes.get(f"{ROOT}/base_model")(_guarded(handlers.base_model))
    routes.post(f"{ROOT}/plan")(_guarded(handlers.plan))
    routes.post(f"{ROOT}/warm")(_guarded(handlers.warm))
    routes.post(f"{ROOT}/evict")(_guarded(handlers.evict))
    routes.post(f"{ROOT}/pin")(_guarded(handlers.pin))
    routes.post(f"{ROOT}/settings")(_guarded(handlers.settings))


class _Handlers:
    def __init__(self, backend: Backend, send: Send) -> None:
        self._backend = backend
        self._send = send

    async def status(self, _request: web.Request) -> web.Response:
        return web.json_response(await ask(self._backend.status))

    async def metrics(self, _request: web.Request) -> web.Response:
        text = await ask(self._backend.metrics)
        return web.Response(text=text, headers={"Content-Type": CONTENT_TYPE})

    async def adapters(self, request: web.Request) -> web.Response:
        return web.json_response(await ask_disk(self._backend.adapters, parse_query(request.query)))

    async def base_model(self, request: web.Request) -> web.Response:
        return web.json_response(await ask_disk(self._backend.base_model, *model_in(request.query)))

    async def plan(self, request: web.Request) -> web.Response:
        body = await read_object(request, MAX_PROMPT_BODY_BYTES)
        prompt, outputs = body.get("prompt"), body.get("outputs")
        if not isinstance(prompt, dict):
            raise RequestError("no_prompt", "`prompt` must be a graph in API form: {node id: {class_type, inputs}}")
        if outputs is not None and not (isinstance(outputs, list) and all(isinstance(o, str) for o in outputs)):
            raise RequestError("invalid_body", "`outputs` must be a list of node ids")
        wanted = None if outputs is None else tuple(outputs)
        return web.json_response(await ask_disk(self._backend.plan, prompt, wanted))

    async def warm(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        only(body, "names")
        return await self._changed(ask_disk(self._backend.act, "warm", names_in(body)))

    async def evict(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        only(body, "names", "unpinned")
        everything = flag_in(body, "unpinned", False)
        return await self._changed(ask_disk(self._backend.act, "evict", None if everything else names_in(body)))

    async def pin(self, request: web.Request) -> web.Response:
        body = await read_object(request)
        only(body, "names", "pinned")
        verb = "pin" if flag_in(body, "pinned", True) else "unpin"
        return await self._changed(ask_disk(self._backend.act, verb, names_in(body)))

    async def settings(self, request: web.Request) -> web.Response:
        return await self._changed(ask(self._backend.configure, await read_object(request)))

    async def _changed(self, action: Awaitable[Answer]) -> web.Response:
        answer = await action
        self._send(STATUS_EVENT, await ask(self._backend.status))
        return web.json_response(answer)


def _guarded(handler: Handler) -> Handler:
    """Turns mistakes of the client into their status, and ours into one log line and a bare 500: texts of exceptions
    can hold paths."""

    @functools.wraps(handler)
    async def guarded(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RequestError as mistake:
            return _error(mistake.status, mistake.kind, str(mistake))
        except Exception:
            logger.warning("WarmStack: %s %s failed", request.method, request.path, exc_info=True)
            return _error(500, "internal_error", "WarmStack failed here; the host's log says how")

    return guarded


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)
