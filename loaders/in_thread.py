"""Awaiting a blocking load: one thread, and a cancel that the load can see.

Not aiofiles: it takes two hops through the loop for each chunk, and one `readinto` in a thread is as fast and wakes the
loop once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from .cancelling import Cancelled

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_thread(load: Callable[[Cancelled], T]) -> T:
    """The result of `load(cancelled)`, run in a thread of the loop's pool. When the task is cancelled the load
    still runs to its next look at `cancelled`, and what it raises then is dropped."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(as_here(load), stop.is_set)
    finally:
        stop.set()


def as_here(call: Callable[P, T]) -> Callable[P, T]:
    """`call` for another thread, as torch is set in this one: inference mode, gradients and autocast, each of which a
    thread begins without, and the GPU that "cuda" means, which is the first one there."""
    is_inference, has_gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    casts = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    # Before somebody has used CUDA nobody has chosen another GPU.
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    @wraps(call)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ExitStack() as stack:
            if gpu is not None:
                stack.enter_context(torch.cuda.device(gpu))
            stack.enter_context(torch.inference_mode(is_inference))
            stack.enter_context(torch.set_grad_enabled(has_gradients))
            for kind, dtype in casts:
                stack.enter_context(torch.autocast(kind, dtype))
            return call(*args, **kwargs)

    return run
