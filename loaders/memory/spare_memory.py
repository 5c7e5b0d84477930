"""SpareMemory: memory that tensors have let go of, kept for the next ones."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from functools import cache

from ..system import kernel
from .host_memory import measure_memory

MOST_TIMES = 2.0
"""Memory is kept for something of about its size: what it lacks is faulted in, what is too much is given back."""
_STEP_BYTES = 2 << 20
"""Sizes are rounded up to whole huge pages: a mapping that is resized by less, or moves, is split into small ones, and
files of one kind differ by a header's length."""
_WORTH_BYTES = 2 * _STEP_BYTES
"""Less is quick to come afresh, and thousands of small pieces would be slow to choose from."""
_STILL_THERE = 0.9
"""Of reclaimable memory, else it is no better than fresh memory, and its huge pages may be slow to come again."""
_PROCESS_SHARE = 8
"""Of the memory there is, the part that the process keeps unasked at most: LoRAs and text encoders, hardly a model."""


@dataclass(eq=False)
class Piece:
    """Private memory that one load after the other uses."""

    memory: mmap.mmap
    in_huge_pages: bool
    """False when it came in small ones, which take direct reads twice as long however often they are used."""
    used: bool = False
    """All of it is there, since a load has written to it."""

    @property
    def size_bytes(self) -> int:
        return len(self.memory)


class SpareMemory:
    """Filling memory that a process has used before takes a third of the time that fresh memory takes, which the kernel
    has to find, to zero and to map page by page. At most `limit_bytes` are kept, the latest. Thread-safe.

    `reclaimable` memory is the kernel's to take back whenever it lacks some, and counts as available. Of that, pieces
    of less than 4 MiB are not kept."""

    def __init__(self, limit_bytes: int, *, reclaimable: bool = False) -> None:
        self._limit_bytes = limit_bytes
        self._least_bytes = _WORTH_BYTES if reclaimable else 1
        self._reclaimable = reclaimable
        self.worth_slow_pages = limit_bytes > 0 and not reclaimable
        """True when memory that comes from here will serve so long that it is worth huge pages that are slow to come:
        each load into small ones takes half as long again."""
        self._kept: deque[Piece] = deque()
        self._lent: dict[int, Piece] = {}
        """What is used just now, by the id of its buffer, which cannot be hashed."""
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes that belong to nobody just now."""
        with self._lock:
            return self._kept_bytes()

    def serves(self, nbytes: int) -> bool:
        """False for what would not be kept anyway."""
        return self._least_bytes <= nbytes and self.room_bytes(nbytes) <= self._limit_bytes

    @staticmethod
    def room_bytes(nbytes: int) -> int:
        """How much fresh memory to get for `nbytes`, so that what comes later fits in too."""
        return nbytes if nbytes < _WORTH_BYTES else -(-nbytes // _STEP_BYTES) * _STEP_BYTES

    def take(self, nbytes: int, *, huge_pages: bool = False) -> Piece | None:
        """Memory of `room_bytes`, with anything in it, for somebody who wants `huge_pages` or takes any; None when
        nothing of about that size is kept. Small pages stay for others then: to give them back beside the load
        that waits made eight of them a fifth slower."""
        room_bytes = self.room_bytes(nbytes)
        with self._lock:
            fitting = [piece for piece in self._kept if _times(piece.size_bytes, room_bytes) <= MOST_TIMES]
            piece = min(
                (piece for piece in fitting if piece.in_huge_pages or not huge_pages),
                key=lambda piece: (not piece.in_huge_pages, _times(piece.size_bytes, room_bytes)),
                default=None,
            )
            if piece is None:
                return None
            self._kept.remove(piece)
        if self._reclaimable and not kernel.is_resident(piece.memory, _STILL_THERE):
            return None
        try:
            if piece.size_bytes != room_bytes:
                piece.used = piece.used and room_bytes < piece.size_bytes
                piece.memory.resize(room_bytes)
        except (BufferError, OSError, SystemError, ValueError):
            # Its last view is only just going, or this system cannot resize: fresh memory will do.
            return None
        return piece

    def lent(self, piece: Piece, nbytes: int) -> ctypes.Array[ctypes.c_ubyte]:
        """The first `nbytes` of `piece` as a buffer: once the last view of it is gone, all of it comes back here."""
        buffer = (ctypes.c_ubyte * nbytes).from_buffer(piece.memory)
        self._lent[id(buffer)] = piece
        weakref.finalize(buffer, self._keep, id(buffer)).atexit = False
        return buffer

    def is_used(self, buffer: object) -> bool:
        """Whether the memory of `buffer` was there before it was lent."""
        piece = self._lent.get(id(buffer))
        return piece is not None and piece.used

    def came_in_small_pages(self, buffer: object) -> None:
        """To be told of what was to be huge and was not."""
        piece = self._lent.get(id(buffer))
        if piece is not None:
            piece.in_huge_pages = False

    def release(self) -> None:
        """Gives everything that is kept back to the system."""
        with self._lock:
            self._kept.clear()

    def start_anew(self) -> None:
        """In a forked process: whoever held the lock is not there, and pages that the parent shares serve nobody."""
        self._lock, self._kept = threading.Lock(), deque()

    def _kept_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self._kept)

    def _keep(self, buffer_id: int) -> None:
        piece = self._lent.pop(buffer_id)
        if self._reclaimable and not kernel.let_reclaim(piece.memory):
            return
        # A finalizer may run anywhere, also in the thread that holds the lock: then this memory is not kept.
        if not self._lock.acquire(blocking=False):
            return
        try:
            piece.used = True
            self._kept.append(piece)
            while self._kept_bytes() > self._limit_bytes:
                self._kept.popleft()
        finally:
            self._lock.release()


@cache
def process_spare() -> SpareMemory:
    """The spare memory of the process, for loads that are given none of their own. It keeps nothing where the kernel
    could not have it back."""
    limit_bytes = measure_memory().total_bytes // _PROCESS_SHARE if kernel.can_reclaim() else 0
    return SpareMemory(limit_bytes, reclaimable=True)


def _after_fork() -> None:
    if process_spare.cache_info().currsize:
        process_spare().start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _times(one_bytes: int, other_bytes: int) -> float:
    small_bytes, large_bytes = sorted((one_bytes, other_bytes))
    return large_bytes / max(small_bytes, 1)
