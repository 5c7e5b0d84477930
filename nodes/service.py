"""Service: a runtime tied to the running server: its hooks, its routes, its background tasks, its end."""

from __future__ import annotations

import asyncio
import atexit
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

from .api.publisher import StatusPublisher
from .api.routes import register
from .runtime import Runtime

logger = logging.getLogger("warmstack")

_EXIT_S = 1.0
"""A read that is stuck on a dead disk must not hold up the exit."""
_EXIT_TRIES = 3
"""A request that Ctrl-C hit raises it again when the loop goes on."""


class Server(Protocol):
    """What the service asks of the host's server, on its loop."""

    @property
    def routes(self) -> Any: ...

    def send(self, event: str, payload: Mapping[str, object]) -> None: ...

    def listening(self) -> bool: ...

    def on_change(self, prompted: Callable[[], None], freed: Callable[[], None]) -> None: ...

    def when_serving(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None: ...


class Service:
    """Owns the tasks: the loop itself keeps only weak references to them."""

    def __init__(self, runtime: Runtime, server: Server) -> None:
        self._runtime = runtime
        self._server = server
        self._publisher = StatusPublisher(runtime.revision, runtime.status, server.send, server.listening)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def attach(self) -> None:
        """Hook everything up. Nothing runs before the server serves."""
        register(self._server.routes, self._runtime, self._publisher.offer)
        self._server.on_change(self._runtime.wake, self._runtime.release)
        self._server.when_serving(self.run)
        atexit.register(self.close)

    async def run(self) -> None:
        """Start the background tasks and return."""
        self._loop = asyncio.get_running_loop()
        self._spawn("prefetch", self._runtime.run())
        self._spawn("status", self._publisher.run())

    def close(self) -> None:
        """Stop readers, then let the tasks end: one destroyed while pending would write to the log of a server that is
        already gone. For the exit of the process, when the loop stands still."""
        self._runtime.close()
        loop, tasks = self._loop, set(self._tasks)
        if not tasks or loop is None or loop.is_closed() or loop.is_running():
            return
        # What Ctrl-C left half done in the host's own requests comes up when the loop turns again: not ours to tell.
        loop.set_exception_handler(lambda _loop, _context: None)
        for task in tasks:
            task.cancel()
        for _ in range(_EXIT_TRIES):
            with suppress(KeyboardInterrupt):
                loop.run_until_complete(asyncio.wait(tasks, timeout=_EXIT_S))
                return

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"warmstack-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            logger.warning(
                "WarmStack: %s has stopped; jobs run without it: %s: %s", task.get_name(), type(error).__name__, error
            )
