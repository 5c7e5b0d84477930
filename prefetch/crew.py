"""Crew: the threads and the tasks of one prefetcher, and the way from them back onto its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .pool import Pool

T = TypeVar("T")

CHORES = 39
"""7 kinds of looks at a disk, 24 models, 4 folders, the pages of 4 disks: on a share that is gone each may hang, and
holds up no other."""


class Crew:
    """Threads take calls from the start, tasks once there is a `loop`."""

    def __init__(self, make_pool: Callable[[int, str], Pool], readers: int) -> None:
        """`readers`: threads that read files."""
        self.chores = make_pool(CHORES, "warmstack-chore")
        self.readers = make_pool(readers, "warmstack-read")
        self._diskless = make_pool(1, "warmstack-diskless-chore")
        self._pools = self.chores, self._diskless, self.readers
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """Those that have not ended."""
        return tuple(self._tasks)

    def begin(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        """A task of its own. On the loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """One that nobody waits for."""
        self.begin(work)

    async def offload(self, call: Callable[[], T]) -> T:
        """In a thread: `call` may look at a disk."""
        return await asyncio.wrap_future(self.chores.submit(call))

    async def compute(self, call: Callable[[], T]) -> T:
        """In a thread of its own: `call` looks at no disk, and never waits behind one that does."""
        return await asyncio.wrap_future(self._diskless.submit(call))

    def call_soon(self, call: Callable[[], None]) -> None:
        """On the loop, from any thread."""
        loop = self.loop
        if loop is not None:
            with suppress(RuntimeError):  # a loop that died without `close` has nobody left to tell
                loop.call_soon_threadsafe(call)

    def close(self) -> None:
        """No more calls are taken; those already taken still run."""
        for pool in self._pools:
            pool.close()

    def join(self, timeout_s: float) -> bool:
        """Waits for threads to end, so long for each; False when one is still stuck in a call."""
        ended = [pool.join(timeout_s) for pool in self._pools]
        return all(ended)
