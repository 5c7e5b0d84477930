"""Pool: where the prefetcher's blocking calls run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class Pool(Protocol):
    """Where blocking calls run."""

    def submit(self, call: Callable[[], T]) -> Future[T]: ...

    def close(self) -> None:
        """No more calls are taken; those already taken still run."""

    def join(self, timeout_s: float) -> bool:
        """Waits until all threads have ended; False when one is still stuck in a call."""
