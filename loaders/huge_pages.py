"""Huge pages for fresh memory: asked for, and given up once one is slow to come.

Faulting fresh memory in costs as much as copying into it, and in huge pages half of that, as long as the system has
some at hand. A virtual machine that hands its free memory back to the host often has not: after a few seconds without
work each took 5 ms, 20 times its zeroing, and 222 MB 0.5 s in place of 0.03, where small pages took 0.06 as ever."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from contextlib import suppress

from . import kernel

_HUGE_PAGE_BYTES = 2 << 20
_STEP_BYTES = 8 << 20
"""Once some are slow, so are all that follow: to look at each fourth finds that out as well."""
_SLOW_S = 0.0015


def ask(memory: mmap.mmap) -> None:
    """Have `memory`, private and untouched, come in huge pages, where the system has them."""
    if len(memory) >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)


def touch(memory: memoryview, start: int, stop: int, *, clock: Callable[[], float] = time.thread_time) -> None:
    """Called before bytes `start` to `stop` of `memory` are written: faults some of their pages in, with a zero each,
    and when one is slow all that is still untouched of the buffer comes in small pages.

    The time is what this thread worked, so that waiting for a core does not count."""
    if len(memory) < _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return
    for position in range(-(-start // _STEP_BYTES) * _STEP_BYTES, stop, _STEP_BYTES):
        # Not by a call that lets go of the interpreter: it could come back later than the page.
        page = ctypes.c_ubyte.from_buffer(memory, position)
        began_s = clock()
        page.value = 0
        if clock() - began_s > _SLOW_S:
            with memoryview(memory.obj) as whole:
                end = ctypes.addressof(ctypes.c_ubyte.from_buffer(whole)) + whole.nbytes
            kernel.want_small_pages(ctypes.addressof(page), end)
            return
