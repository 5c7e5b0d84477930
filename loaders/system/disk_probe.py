"""How many readers a disk takes: a short measurement past the page cache, which neither fills nor empties it."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from ..cancelling import Cancelled

READERS = (1, 2, 4)
GAIN = 1.2
"""How many times as much every doubling of the readers must bring, to be worth disturbing who else reads."""
MOST_S = 0.5
MOST_BYTES = 256 << 20
LEAST_BYTES = 8 << 20
"""Of each stage: less says more about the disk's latency than about its rate."""
_BLOCK_BYTES = 1 << 20
"""What the kernel reads ahead at a time for a reader of large chunks: with more the first reader alone fills the
queue."""
_RUN_BYTES = 4 << 20
"""Read in one piece by one reader, as a file is."""

Run = tuple[str, int]


def probe_rates(
    paths: Sequence[str],
    *,
    cancelled: Cancelled,
    clock: Callable[[], float] = time.monotonic,
    most_bytes: int = MOST_BYTES,
    most_s: float = MOST_S,
) -> tuple[float, ...]:
    """Bytes per second that 1, 2 and 4 readers get out of the disk of `paths`, as far as doublings pay.

    Blocking, at most about `most_s` and `most_bytes`. Empty where the system has no direct reads, where the files are
    too small to tell, or once `cancelled()`.
    """
    if not hasattr(os, "O_DIRECT") or not hasattr(os, "preadv"):
        return ()
    runs = _runs(paths)
    stages = len(READERS)
    rates: list[float] = []
    for readers in READERS:
        stage = _Stage(runs, most_bytes // stages, clock() + most_s / stages, clock, cancelled)
        rate = stage.rate(readers)
        if cancelled() or (rate is None and not rates):
            return ()
        if rate is None:
            break
        rates.append(rate)
        if readers_that_pay(rates) < readers:
            break
    return tuple(rates)


def readers_that_pay(rates: Sequence[float]) -> int:
    """The most readers of which every doubling was worth it; 1 when nothing was measured."""
    for i in range(1, len(rates)):
        if rates[i] < GAIN * rates[i - 1]:
            return READERS[i - 1]
    return READERS[len(rates) - 1] if rates else 1


def _runs(paths: Sequence[str]) -> deque[Run]:
    """Whole pieces of the files, a piece of each in turn: no byte twice, since disks have caches of their own."""
    pieces: list[list[Run]] = []
    for path in paths:
        try:
            size_bytes = os.stat(path).st_size
        except OSError:
            continue
        pieces.append([(path, offset) for offset in range(0, size_bytes - _RUN_BYTES + 1, _RUN_BYTES)])
    return deque(run for run in chain.from_iterable(zip_longest(*pieces)) if run is not None)


class _Stage:
    """One number of readers, measured until it has read enough."""

    def __init__(
        self,
        runs: deque[Run],
        most_bytes: int,
        until_s: float,
        clock: Callable[[], float],
        cancelled: Cancelled,
    ) -> None:
        self._runs = runs
        self._most_bytes = most_bytes
        self._until_s = until_s
        self._clock = clock
        self._cancelled = cancelled
        self._read_bytes: list[int] = []
        self._refused = False

    def rate(self, readers: int) -> float | None:
        """None when it was refused or did not read enough to tell."""
        started_s = self._clock()
        threads = [threading.Thread(target=self._read, name="warmstack-probe", daemon=True) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, read_bytes = self._clock() - started_s, sum(self._read_bytes)
        return None if self._refused or read_bytes < LEAST_BYTES or seconds <= 0 else read_bytes / seconds

    def _read(self) -> None:
        try:
            with mmap.mmap(-1, _BLOCK_BYTES) as block:  # direct reads want aligned memory
                while not self._is_over():
                    self._read_run(self._runs.popleft(), block)
        except IndexError:
            return
        except OSError:
            self._refused = True

    def _read_run(self, run: Run, block: mmap.mmap) -> None:
        path, origin = run
        file = os.open(path, os.O_RDONLY | os.O_DIRECT | getattr(os, "O_CLOEXEC", 0))
        try:
            for offset in range(origin, origin + _RUN_BYTES, _BLOCK_BYTES):
                if self._is_over():
                    return
                self._read_bytes.append(os.preadv(file, [block], offset))
        finally:
            os.close(file)

    def _is_over(self) -> bool:
        return (
            self._refused
            or self._cancelled()
            or self._clock() >= self._until_s
            or len(self._read_bytes) * _BLOCK_BYTES >= self._most_bytes
        )
