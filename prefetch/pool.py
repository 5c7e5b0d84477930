"""Pool: where the prefetcher's blocking calls run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")

_STEP_S = 0.002
"""A pool may wait so long for each of its threads that is stuck."""


class Pool(Protocol):
    """Where blocking calls run."""

    def submit(self, call: Callable[[], T]) -> Future[T]: ...

    def close(self) -> None:
        """No more calls are taken; those already taken still run."""

    def join(self, timeout_s: float) -> bool:
        """Waits until all threads have ended; False when one is still stuck in a call."""


class Joined(Protocol):
    """Anything with threads."""

    def join(self, timeout_s: float) -> bool: ...


def join_all(pools: Sequence[Joined], timeout_s: float, clock: Callable[[], float] = time.monotonic) -> bool:
    """Waits until all threads have ended, `timeout_s` at most however many are stuck; False when one still is."""
    deadline_s = clock() + timeout_s
    while True:
        ended = [pool.join(_STEP_S) for pool in pools]
        if all(ended) or clock() >= deadline_s:
            return all(ended)
