"""Gate: where a reader waits between two chunks while somebody else's bytes are needed sooner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_POLL_S = 0.005
"""How late a demand that joins a held read gets it going: `until` is a flag of the cache that nobody can wait on."""


class Gate:
    """Opened and closed by one thread, passed by another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.held_s = 0.0
        """How long somebody has stood before it."""
        self._clock = clock
        self._open = threading.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def pass_through(self, until: Callable[[], bool]) -> None:
        """Returns once it is open, or soon after `until()` is true."""
        if self._open.is_set():
            return
        started_s = self._clock()
        while not (until() or self._open.wait(_POLL_S)):
            pass
        self.held_s += self._clock() - started_s
