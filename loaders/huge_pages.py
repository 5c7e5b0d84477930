"""Huge pages for fresh memory: asked for, and given up for a while once one is slow to come.

Faulting fresh memory in costs as much as copying into it, and in huge pages half of that, as long as the system has
some at hand. A virtual machine that hands its free memory back to the host often has not: a huge page then took 5 ms,
20 times its zeroing, and 222 MB 0.5 s in place of 0.03, where small pages took 0.06 as ever."""

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
_FIRST_S, _LONGEST_S, _LONGER = 10.0, 600.0, 4
"""How long small pages do before one huge page shows whether the system has found some: longer than a checkpoint takes,
and longer each time that it has not."""


class HugePages:
    """What is known of the system's huge pages; one for the process, since they are. Thread-safe."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, work_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._work_clock = work_clock
        self._given_up_s = float("-inf")
        self._period_s = _FIRST_S

    def ask(self, memory: mmap.mmap) -> None:
        """Have `memory`, private and untouched, come in huge pages, where the system has them and they are not slow."""
        if len(memory) < _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
            return
        if not self._given_up:
            with suppress(OSError):
                memory.madvise(mmap.MADV_HUGEPAGE)

    def touch(self, memory: memoryview, start: int, stop: int) -> None:
        """Called before bytes `start` to `stop` of `memory` are written: faults some of their pages in, with a zero
        each, and when one is slow all that is still untouched of the mapping comes in small pages.

        The time is what this thread worked, so that waiting for a core does not count."""
        if len(memory) < _HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_NOHUGEPAGE"):
            return
        for position in range(-(-start // _STEP_BYTES) * _STEP_BYTES, stop, _STEP_BYTES):
            # Not by a call that lets go of the interpreter: it could come back later than the page.
            page = ctypes.c_ubyte.from_buffer(memory, position)
            began_s = self._work_clock()
            page.value = 0
            if self._work_clock() - began_s > _SLOW_S:
                self._give_up()
            # Other loads have asked before this was known.
            if self._given_up:
                kernel.want_small_pages(ctypes.addressof(page), _end_of(memory.obj))
                return

    @property
    def _given_up(self) -> bool:
        return self._clock() - self._given_up_s <= self._period_s

    def _give_up(self) -> None:
        if self._given_up:
            # Another thread met a slow one at the same time.
            return
        now_s = self._clock()
        again = now_s - self._given_up_s <= self._period_s * _LONGER
        self._period_s = min(self._period_s * _LONGER, _LONGEST_S) if again else _FIRST_S
        self._given_up_s = now_s


def _end_of(whole: object) -> int:
    """The address behind the last byte of a writable buffer."""
    with memoryview(whole) as memory:  # type: ignore[arg-type]  # what a memoryview was made of
        return ctypes.addressof(ctypes.c_ubyte.from_buffer(memory)) + memory.nbytes


HUGE_PAGES = HugePages()
