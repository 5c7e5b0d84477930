"""StubHost: as much of ComfyUI's server as its front end needs to boot, with our real routes and static files on it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, web

from warmstack.nodes.api.routes import STATUS_EVENT, register

from .node_info import object_info

WEB = Path(__file__).resolve().parents[3] / "web"
PACK = "/extensions/comfyui-warmstack"

# What ComfyUI sends under --disable-api-nodes: with it, anything fetched from elsewhere is an error on the page.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self' data:; frame-src 'self'; object-src 'self';"
)

QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Locale": "en",
    "Comfy.Workflow.Persist": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Window.UnloadConfirmation": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Toast.DisableReconnectingToast": True,
    "Comfy.VersionCompatibility.DisableWarnings": True,
}


class StubHost:
    """Serves on one port until closed; `stop` and `start` play a server that dies and comes back."""

    def __init__(self, static: Path, backend: Any, settings: Mapping[str, object], page: str = "") -> None:
        """`page` is served at /component: a test's own page, with our files but without the front end."""
        self.static = static
        self._page = page
        self._sockets: set[web.WebSocketResponse] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.serve(backend, settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def serve(self, backend: Any, settings: Mapping[str, object]) -> None:
        """Another server at the same address."""
        self.stop()
        self._backend = backend
        self._settings = {**QUIET, **settings}
        self.requests: list[str] = []
        self.start()

    def start(self) -> None:
        self._wait(self._start())

    def stop(self) -> None:
        self._wait(self._stop())

    def push(self) -> None:
        """Sends the backend's status, as the publisher does."""
        self._loop.call_soon_threadsafe(self._send, STATUS_EVENT, self._backend.status())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._policed])
        routes = web.RouteTableDef()
        register(routes, self._backend, self._send)
        for route in list(routes):
            if isinstance(route, web.RouteDef):
                routes.route(route.method, f"/api{route.path}")(route.handler)
        app.add_routes(routes)
        app.add_routes(
            [
                web.get("/ws", self._socket),
                web.get("/", self._index),
                web.get("/component", self._component),
                *self._host_routes(),
            ]
        )
        app.add_routes([web.static(PACK, WEB), web.static("/", self.static)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        for socket in list(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _host_routes(self) -> list[web.RouteDef]:
        answers: dict[str, Any] = {
            "users": {"storage": "server", "migrated": True},
            "settings": self._settings,
            "extensions": [f"{PACK}/{file.relative_to(WEB).as_posix()}" for file in sorted(WEB.rglob("*.js"))],
            "object_info": object_info(),
            "system_stats": {"system": {"comfyui_version": "0.33.0", "python_version": "3.11"}, "devices": []},
            "features": {},
            "i18n": {},
            "userdata": [],
            "global_subgraphs": {},
            "jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 0, "total": 0, "has_more": False}},
            "experiment/models": [],
        }
        return [web.get(f"/api/{path}", _fixed(answer)) for path, answer in answers.items()] + [
            web.post("/api/settings", _fixed({})),
            web.post("/api/settings/{name}", _fixed({})),
        ]

    @web.middleware
    async def _policed(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = POLICY
            if request.path.startswith("/assets/"):
                response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    async def _index(self, _request: web.Request) -> web.FileResponse:
        return web.FileResponse(self.static / "index.html")

    async def _component(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._page, content_type="text/html")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        await socket.send_json(
            {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}}
        )
        async for message in socket:
            if message.type is web.WSMsgType.TEXT and json.loads(message.data).get("type") == "feature_flags":
                await socket.send_json({"type": "feature_flags", "data": {}})
        self._sockets.discard(socket)
        return socket

    def _send(self, event: str, data: Mapping[str, object]) -> None:
        for socket in self._sockets:
            task = self._loop.create_task(_deliver(socket, {"type": event, "data": data}))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)


async def _deliver(socket: web.WebSocketResponse, message: Mapping[str, object]) -> None:
    if not socket.closed:
        await socket.send_json(message)


def _fixed(answer: object) -> Any:
    async def handler(_request: web.Request) -> web.Response:
        return web.json_response(answer)

    return handler
