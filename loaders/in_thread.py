"""Awaiting a blocking load: one thread, and a cancel that the load can see.

Not aiofiles: it takes two hops through the loop for each chunk, and one `readinto` in a thread is as fast and wakes the
loop once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(load: Callable[[Callable[[], bool]], T]) -> T:
    """The result of `load(cancelled)`, run in a thread of the loop's pool. When the task is cancelled the load
    still runs to its next look at `cancelled`, and what it raises then is dropped."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(on_this_gpu(load), stop.is_set)
    finally:
        stop.set()


def on_this_gpu(load: Callable[P, T]) -> Callable[P, T]:
    """`load` for another thread. "cuda" means the GPU that is current here: a thread begins with the first one."""
    if not torch.cuda.is_initialized():
        # Nobody has chosen another.
        return load
    gpu = torch.cuda.current_device()

    @wraps(load)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.cuda.device(gpu):
            return load(*args, **kwargs)

    return run
