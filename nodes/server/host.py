"""ComfyHost: everything this pack asks of the running ComfyUI server, through hooks that it offers. Nothing of the
host is replaced or wrapped.

The only module that touches the server, its queue, its folders and its memory accounting. Import it late: it needs a
host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import psutil
from aiohttp import web

from ...prefetch.queue.job import QueuedJob
from .host_queue import HostQueue
from .memory_state import DeviceMemory, MemoryState

logger = logging.getLogger("warmstack")


class DetachedHost:
    """The host's folders and memory without its server: enough for nodes that load LoRAs on demand."""

    _asked_bytes = 0
    """RAM that the last prompt seen wanted to stay free."""

    def lora_folders(self) -> tuple[str, ...]:
        """Folders in the host's own order, so that a name in two of them means the same file to both. Read anew each
        time: users add some."""
        return tuple(folder_paths.get_folder_paths("loras"))

    def model_folders(self, kind: str) -> tuple[str, ...]:
        """Folders of "diffusion_models", "checkpoints" or another kind that the host knows, in its order."""
        return tuple(folder_paths.get_folder_paths(kind))

    def state_directory(self) -> Path | None:
        """None: another runtime may own it."""
        return None

    def queued_jobs(self) -> Sequence[QueuedJob]:
        return ()

    def memory(self) -> MemoryState:
        """RAM from psutil, device memory from the host's own accounting."""
        ram = psutil.virtual_memory()
        page_cache_bytes = getattr(ram, "cached", None)
        return MemoryState(ram.total, ram.available, page_cache_bytes, self._headroom_bytes(ram.total), _devices())

    def headroom_bytes(self) -> int:
        """The RAM that the host wants to keep free. Cheaper than `memory`."""
        return self._headroom_bytes(psutil.virtual_memory().total)

    def step_progress(self) -> float | None:
        """How far the node is that works step by step just now, 0 to 1, by the host's own record of the running job;
        None when none does. Only read: no handler is added to it."""
        from comfy_execution import progress

        record = getattr(progress, "global_progress_registry", None)
        for state in reversed(tuple(record.nodes.values()) if record is not None else ()):
            if state["state"] is progress.NodeState.Running and state["max"] > 1:
                return min(float(state["value"] / state["max"]), 1.0)
        return None

    def device_tier_refusal(self) -> str:
        """Why adapters are not kept on the device beside this host's models.

        Under dynamic VRAM and with async offload the host brings patches to the device itself, through pinned memory of
        its own, and would bring ours a second time. Without either it moves each patch as it applies it, and frees its
        models by an account that knows nothing of what others hold there: ours would end in its out-of-memory."""
        from comfy import memory_management, model_management

        device = model_management.get_torch_device()
        if device.type != "cuda":
            return f"the host computes on {device.type}, where adapters already are"
        if getattr(memory_management, "aimdo_enabled", False):
            return "the host brings patches to the device itself (dynamic VRAM)"
        if getattr(model_management, "NUM_STREAMS", 0) > 0:
            return "the host brings patches to the device itself (async offload)"
        return "the host's account of device memory would not see them"

    def _headroom_bytes(self, total_bytes: int) -> int:
        """What the host says while a prompt runs (`--cache-ram`), which holds as long as the process; until then its
        default, a tenth of RAM within 2 and 10 GiB."""
        from comfy import memory_management

        asked_bytes = int(getattr(memory_management, "RAM_CACHE_HEADROOM", 0))
        if asked_bytes:
            self._asked_bytes = asked_bytes
        return self._asked_bytes or min(max(total_bytes // 10, 2 << 30), 10 << 30)


class ComfyHost(DetachedHost):
    """The server as the runtime sees it. Built on the server's loop; `send` and `queued_jobs` may be called from any
    thread."""

    def __init__(self) -> None:
        from server import PromptServer

        self._server: Any = PromptServer.instance

    @property
    def routes(self) -> web.RouteTableDef:
        routes: web.RouteTableDef = self._server.routes
        return routes

    def state_directory(self) -> Path:
        """Private, machine-wide, not reachable over HTTP. It may not exist, and it may not be writable."""
        return Path(folder_paths.get_system_user_directory("warmstack"))

    def queued_jobs(self) -> Sequence[QueuedJob]:
        return HostQueue(*self._server.prompt_queue.get_current_queue_volatile())

    def send(self, event: str, payload: Mapping[str, object]) -> None:
        """Broadcast to every open page."""
        self._server.send_sync(event, payload)

    def listening(self) -> bool:
        """Whether any page would receive what `send` sends."""
        return bool(self._server.sockets)

    def on_change(self, prompted: Callable[[], None], freed: Callable[[], None]) -> None:
        """`prompted()` at every POST /prompt, `freed()` when somebody asks the host to free memory; both on the
        loop."""
        self._on_prompt(prompted)
        self._on_free(freed)

    def _on_prompt(self, notice: Callable[[], None]) -> None:
        """Call `notice` at every POST /prompt, before it is validated: the queue is the truth, this only says when
        to look."""

        def seen(body: dict[str, Any]) -> dict[str, Any]:
            try:
                notice()
            # The host would log a traceback at every prompt; the queue is looked at again anyway.
            except Exception:
                logger.debug("a prompt could not wake the prefetcher", exc_info=True)
            return body

        self._server.add_on_prompt_handler(seen)

    def _on_free(self, release: Callable[[], None]) -> None:
        """Call `release` when somebody asks the host to free memory (POST /free)."""

        async def seen(request: web.Request, _response: web.StreamResponse) -> None:
            if request.method == "POST" and request.path.rstrip("/").endswith("/free"):
                try:
                    if await _asks_to_free(request):
                        release()
                # The host's own answer is on its way: a fault of ours must not turn it into an error.
                except Exception:
                    logger.debug("POST /free could not be followed", exc_info=True)

        self._server.app.on_response_prepare.append(seen)

    def when_serving(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `start()` as soon as the server serves. A host that only tests its imports never serves, and then no
        task is left pending."""

        async def serving(_app: web.Application) -> None:
            await start()

        self._server.app.on_startup.append(serving)


async def _asks_to_free(request: web.Request) -> bool:
    body = await request.json()
    return isinstance(body, dict) and bool(body.get("unload_models") or body.get("free_memory"))


def _devices() -> tuple[DeviceMemory, ...]:
    from comfy import model_management

    device = model_management.get_torch_device()
    if device.type in ("cpu", "mps"):
        return ()
    total_bytes, free_bytes = model_management.get_total_memory(device), model_management.get_free_memory(device)
    return (DeviceMemory(model_management.get_torch_device_name(device), int(total_bytes), int(free_bytes)),)
