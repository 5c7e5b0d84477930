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

from ..system import kernel

_HUGE_PAGE_BYTES = 2 << 20
_SLOW_PAGE_S = 0.0015
_USUAL_S_PER_BYTE = 0.0006 / (1 << 20)
"""Of a read, small pages and the copy from the page cache included. With slow huge pages it takes 2.6 ms a MiB."""
_BEARABLE_COPYING_S_PER_BYTE = 0.0001 / (1 << 20)
"""Of what is left. Where there is a slow one, more follow: the system hands out first what it got back last."""
_BEARABLE_BESIDE_DISK_S_PER_BYTE = 0.0004 / (1 << 20)
"""That is how much dearer small pages are there, and the cores have time while the disk works."""


def ask(memory: mmap.mmap, *, kept: bool = False, clock: Callable[[], float] = time.thread_time) -> bool:
    """Have `memory`, private and untouched, come in huge pages, where the system has them and the first is quick: False
    where it is not. What is `kept` for later loads is worth slow ones too: each load into small pages takes half as
    long again."""
    if len(memory) < 2 * _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return True
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
        if kept:
            return True
        # A huge page begins at most that far into the memory.
        inside_one = ctypes.c_ubyte.from_buffer(memory, _HUGE_PAGE_BYTES)
        began_s = clock()
        ctypes.memset(ctypes.addressof(inside_one), 0, 1)
        if clock() - began_s > _SLOW_PAGE_S:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            return False
    return True


class Patience:
    """With the huge pages of one fresh buffer, into which `nbytes` are copied from memory, or read `from_disk`. It ends
    once slow ones have cost too much for what is left, so that a few of them are put up with."""

    def __init__(self, nbytes: int, *, from_disk: bool, over: Callable[[object], None] | None = None) -> None:
        """`over(buffer)` is called once it is."""
        self._bearable_s_per_byte = _BEARABLE_BESIDE_DISK_S_PER_BYTE if from_disk else _BEARABLE_COPYING_S_PER_BYTE
        self._left_bytes = nbytes
        self._lost_s = 0.0
        self._over = False
        self._tell = over

    def weigh(self, memory: memoryview, start: int, stop: int, worked_s: float) -> None:
        """Called when a thread has read bytes `start` to `stop` of `memory`, at which it worked for `worked_s`. Once
        patience is over, all that is untouched of the buffer behind them comes in small pages."""
        # Threads share this without a lock: what one forgets now and then changes little.
        self._left_bytes -= stop - start
        self._lost_s += max(0.0, worked_s - (stop - start) * _USUAL_S_PER_BYTE)
        if self._over or stop == len(memory) or self._lost_s <= self._left_bytes * self._bearable_s_per_byte:
            return
        self._over = True
        if self._tell is not None:
            self._tell(memory.obj)
        with memoryview(memory.obj) as whole:
            end = ctypes.addressof(ctypes.c_ubyte.from_buffer(whole)) + whole.nbytes
        kernel.want_small_pages(ctypes.addressof(ctypes.c_ubyte.from_buffer(memory, stop)), end)
