"""A prefetcher on real threads: waiting for it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from .world import World

DEADLINE_S = 30.0


async def until(world: World, is_so: Callable[[], bool]) -> None:
    """Looks at the queue again and again, until it is so."""
    if world.task is None:
        world.task = asyncio.get_running_loop().create_task(world.prefetcher.run())
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert not world.task.done() and time.monotonic() < deadline_s
        world.prefetcher.wake()
        await asyncio.sleep(0.002)


def threads() -> list[str]:
    """Those of prefetchers. What answers the routes (nodes/server/off_loop.py) lives as long as the process, and what
    fills the slots of an upload (loaders/transfer.py) until another test's worker is collected."""
    others = ("warmstack-ask", "warmstack-tell", "warmstack-upload")
    names = (thread.name for thread in threading.enumerate() if thread.name.startswith("warmstack"))
    return [name for name in names if not name.startswith(others)]
