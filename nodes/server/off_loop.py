"""Blocking calls away from the server's loop, in threads of our own.

On a share that is gone a call may never end. In the loop's own threads, which serve every pack, a few of them would
stop everybody, and the process would not end before they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from ...loaders.system.daemon_pool import DaemonPool

T = TypeVar("T")

_disk = DaemonPool(8, "warmstack-ask")
_diskless = DaemonPool(2, "warmstack-tell")


async def ask_disk(call: Callable[..., T], *arguments: Any) -> T:
    """For whatever looks up a file in the user's folders: those that hang hold up each other, and nothing else."""
    return await asyncio.wrap_future(_disk.submit(partial(call, *arguments)))


async def ask(call: Callable[..., T], *arguments: Any) -> T:
    """For what never looks there."""
    return await asyncio.wrap_future(_diskless.submit(partial(call, *arguments)))
