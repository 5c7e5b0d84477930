"""Huge pages for fresh memory: asked for, and given up once they are slow to come.

Faulting fresh memory in costs as much as copying into it, and in huge pages half of that, as long as the system has
some at hand. A virtual machine that hands its free memory back to the host often has not: after a few seconds without
work each took 5 ms, 20 times its zeroing, and 222 MB 0.5 s in place of 0.03, where small pages took 0.06 as ever.

Times are what a thread worked, so that waiting for a core, the disk or the interpreter does not count."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from contextlib import suppress

from . import kernel

_HUGE_PAGE_BYTES = 2 << 20
_SLOW_PAGE_S = 0.0015
_SLOW_S_PER_BYTE = 0.0012 / (1 << 20)
"""Of a read. Small pages and a copy from the page cache take 0.5 ms a MiB on a slow core, slow huge pages 2.6."""
_LEAST_BYTES = 1 << 20
"""Of a read whose time says anything about pages."""


def ask(memory: mmap.mmap, *, clock: Callable[[], float] = time.thread_time) -> None:
    """Have `memory`, private and untouched, come in huge pages, where the system has them and the first is quick."""
    if len(memory) < 2 * _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
        # A huge page begins at most that far into the memory.
        inside_one = ctypes.c_ubyte.from_buffer(memory, _HUGE_PAGE_BYTES)
        began_s = clock()
        ctypes.memset(ctypes.addressof(inside_one), 0, 1)
        if clock() - began_s > _SLOW_PAGE_S:
            memory.madvise(mmap.MADV_NOHUGEPAGE)


def weigh(memory: memoryview, start: int, stop: int, worked_s: float) -> None:
    """Called when a thread has read bytes `start` to `stop` of `memory`, at which it worked for `worked_s`: when that
    was slow, all that is untouched of the buffer behind them comes in small pages."""
    read_bytes = stop - start
    if read_bytes < _LEAST_BYTES or worked_s <= read_bytes * _SLOW_S_PER_BYTE or stop == len(memory):
        return
    with memoryview(memory.obj) as whole:
        end = ctypes.addressof(ctypes.c_ubyte.from_buffer(whole)) + whole.nbytes
    kernel.want_small_pages(ctypes.addressof(ctypes.c_ubyte.from_buffer(memory, stop)), end)
