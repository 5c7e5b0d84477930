"""Gate: where a reader waits between two chunks while somebody else's bytes are needed sooner."""

from __future__ import annotations

import time
from collections.abc import Callable

_POLL_S = 0.005
"""How late a held read goes on. Asking again costs a held thread little; an event in each of the many readings that
are never held would cost the event loop more."""


class Gate:
    """Opened and closed by one thread, passed by another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.held_s = 0.0
        """How long somebody has stood before it."""
        self.is_open = True
        self._clock = clock

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def pass_through(self, until: Callable[[], bool]) -> None:
        """Returns soon after it is open or `until()` is true."""
        if self.is_open:
            return
        started_s = self._clock()
        while not (self.is_open or until()):
            time.sleep(_POLL_S)
        self.held_s += self._clock() - started_s
