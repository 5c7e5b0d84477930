"""SpareMemory: memory that tensors have let go of, kept for the next ones."""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections import deque

MOST_TIMES = 2.0
"""Memory is kept for something of about its size: what it lacks is faulted in, what is too much is given back."""
_STEP_BYTES = 2 << 20
"""Sizes are rounded up to whole huge pages: a mapping that is resized by less, or moves, is split into small ones, and
files of one kind differ by a header's length."""


class SpareMemory:
    """Filling memory that a process has used before takes a third of the time that fresh memory takes, which the kernel
    has to find, to zero and to map page by page. At most `limit_bytes` are kept, the latest. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[mmap.mmap] = deque()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes that belong to nobody just now."""
        with self._lock:
            return sum(map(len, self._kept))

    @staticmethod
    def room_bytes(nbytes: int) -> int:
        """How much fresh memory to get for `nbytes`, so that what comes later fits in too."""
        return nbytes if nbytes < 2 * _STEP_BYTES else -(-nbytes // _STEP_BYTES) * _STEP_BYTES

    def take(self, nbytes: int) -> mmap.mmap | None:
        """Memory of `room_bytes`, with anything in it; None when nothing of about that size is kept."""
        room_bytes = self.room_bytes(nbytes)
        with self._lock:
            memory = min(self._kept, key=lambda kept: _times(len(kept), room_bytes), default=None)
            if memory is None or _times(len(memory), room_bytes) > MOST_TIMES:
                return None
            self._kept.remove(memory)
        try:
            if len(memory) != room_bytes:
                memory.resize(room_bytes)
        except (BufferError, OSError, SystemError, ValueError):
            # Its last view is only just going, or this system cannot resize: fresh memory will do.
            return None
        return memory

    def lent(self, memory: mmap.mmap, nbytes: int) -> ctypes.Array[ctypes.c_ubyte]:
        """The first `nbytes` of `memory` as a buffer: once the last view of it is gone, all of it comes back here."""
        buffer = (ctypes.c_ubyte * nbytes).from_buffer(memory)
        weakref.finalize(buffer, self._keep, memory).atexit = False
        return buffer

    def release(self) -> None:
        """Gives everything that is kept back to the system."""
        with self._lock:
            self._kept.clear()

    def _keep(self, memory: mmap.mmap) -> None:
        # A finalizer may run anywhere, also in the thread that holds the lock: then this memory is not kept.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if len(memory) > self._limit_bytes:
                return
            self._kept.append(memory)
            while sum(map(len, self._kept)) > self._limit_bytes:
                self._kept.popleft()
        finally:
            self._lock.release()


def _times(one_bytes: int, other_bytes: int) -> float:
    small_bytes, large_bytes = sorted((one_bytes, other_bytes))
    return large_bytes / max(small_bytes, 1)
