"""Filling memory from a file: large reads that release the GIL, from one thread or several, cancelled between two."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import FileIO

from ..cancelling import Cancelled
from ..errors import LoadCancelledError, SafetensorsLoadError
from ..memory.huge_pages import Patience
from ..system.rate_limit import RateLimit
from .opened import reading

CHUNK_BYTES = 32 << 20
"""Each return from a read waits up to 5 ms for the interpreter when another thread is busy, so a 224 MB adapter gets 7
of them; a cancel waits for one chunk."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a fill may go on: who may stop it, who slows it down, who is told how far it is."""

    cancelled: Cancelled | None = None
    limiter: RateLimit | None = None
    reached: Callable[[str, int, int | str], None] | None = None
    """Called from the reading thread with the path and the bytes of each chunk that has arrived, and the offset in the
    file where it ends, or the key of the tensor that it is."""

    @property
    def stopped(self) -> bool:
        return self.ask()

    def ask(self) -> bool:
        """`stopped`, as a `Cancelled`."""
        return self.cancelled is not None and self.cancelled()

    def until(self, over: Cancelled) -> Pace:
        """This one, for readers who stop as well once who waits for them does."""
        return replace(self, cancelled=lambda: over() or self.stopped)

    def allow(self, path: str, nbytes: int) -> None:
        """Return when the next `nbytes` may be read, or raise LoadCancelledError."""
        if self.limiter is not None:
            self.limiter.spend(nbytes, self.ask)
        if self.stopped:
            raise LoadCancelledError(path, "cancelled while it was being read")

    def report(self, path: str, nbytes: int, at: int | str) -> None:
        """Pass on that a chunk has arrived; `at` as in `reached`."""
        if self.reached is not None:
            self.reached(path, nbytes, at)


Span = tuple[memoryview, int]
"""Memory to fill, and the offset in the file of what belongs there."""


def fill(
    path: str,
    file: FileIO,
    spans: Sequence[Span],
    pace: Pace,
    *,
    threads: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
    patience: Patience | None = None,
) -> None:
    """Fill every span from `file`, with `patience` when they are in huge pages that may be slow to come. Whatever
    raises, no thread writes to them afterwards."""

    def read_chunk(chunk: tuple[memoryview, int, int]) -> None:
        span, start, offset = chunk
        target = span[start : start + chunk_bytes]
        pace.allow(path, len(target))
        began_s = time.thread_time()
        read_at(path, file, target, offset)
        if patience is not None:
            patience.weigh(span, start, start + len(target), time.thread_time() - began_s)
        pace.report(path, len(target), offset + len(target))

    chunks = [
        (target, start, offset + start) for target, offset in spans for start in range(0, len(target), chunk_bytes)
    ]
    if threads == 1 or len(chunks) < 2 or not hasattr(os, "preadv"):
        for chunk in chunks:
            read_chunk(chunk)
        return
    with ThreadPoolExecutor(min(threads, len(chunks)), "warmstack-load") as pool:
        for _ in pool.map(read_chunk, chunks):
            pass


def read_at(path: str, file: FileIO, target: memoryview, offset: int) -> None:
    """Fill `target` from byte `offset` on; one call as a rule, since only signals and 2 GiB make reads short.
    Threads may share `file` where the system has preadv."""
    filled = 0
    while filled < len(target):
        with reading(path):
            if hasattr(os, "preadv"):
                count = os.preadv(file.fileno(), [target[filled:]], offset + filled)
            else:
                file.seek(offset + filled)
                count = file.readinto(target[filled:]) or 0
        if not count:
            raise SafetensorsLoadError(path, f"ends {len(target) - filled} bytes too early; copy or download it again")
        filled += count
