"""Gate: what a read passes before each of its chunks. It counts them, holds them while it is closed, and then lets them
through at the rate that is allowed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ...loaders.cancelling import Cancelled, never
from ...loaders.system.rate_limit import RateLimit

STALL_S = 10.0
"""A chunk that has not come for so long may never come: on a link of 1 MB/s one takes eight seconds."""
_POLL_S = 0.005
"""How late a held read goes on. Asking again costs a held thread little; an event in each of the many readings that
are never held would cost the event loop more."""


class Gate(RateLimit):
    """Opened and closed by one thread, passed by another."""

    def __init__(
        self,
        limiter: Callable[[], RateLimit | None],
        is_cancelled: Cancelled,
        joined: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limiter` gives the limit that holds at the moment. `is_cancelled`: whether the read itself was told to stop;
        `joined` is called when it was not and yet nothing may hold it any more: a demand has joined it."""
        # Without RateLimit's own state: it holds nobody back itself, and one is made for every read.
        self.bytes_per_s = math.inf
        self.done_bytes = 0
        self.held_s = 0.0
        """How long somebody has stood before it."""
        self.passed_at_s = math.inf
        """When it let the last chunk through, infinite while it holds one; whoever begins to read sets it."""
        self.is_open = True
        self.is_demanded = False
        self.was_limited = False
        """Some chunk had to keep to a rate."""
        self._limiter = limiter
        self._is_cancelled = is_cancelled
        self._joined = joined
        self._clock = clock
        self._asked_bytes = 0

    def spend(self, nbytes: int, cancelled: Cancelled | None = None) -> None:
        cancelled = cancelled or never
        self.done_bytes += self._asked_bytes
        self._asked_bytes = nbytes
        self.passed_at_s = math.inf

        def released() -> bool:
            return cancelled() and self._is_released()

        released()
        if not self.is_open:
            self._hold(released)
        self._pay(nbytes, released)
        self.passed_at_s = self._clock()

    def is_stalled(self, now_s: float) -> bool:
        """The read behind it hangs, or might as well."""
        return now_s - self.passed_at_s >= STALL_S

    def _hold(self, released: Cancelled) -> None:
        started_s = self._clock()
        while not (self.is_open or released()):
            time.sleep(_POLL_S)
        self.held_s += self._clock() - started_s

    def _pay(self, nbytes: int, released: Cancelled) -> None:
        """A limit that is replaced holds nobody any longer: under a low one a read would wait for hours."""
        paid: RateLimit | None = None

        def let_go() -> bool:
            return released() or self._limiter() is not paid

        while (limiter := self._limiter()) is not None and limiter is not paid and not released():
            paid = limiter
            self.was_limited = True
            limiter.spend(nbytes, let_go)

    def _is_released(self) -> bool:
        """Whoever hands us `cancelled` also says so when a demand has joined; the two are told apart here."""
        if not self.is_demanded and not self._is_cancelled():
            self.is_demanded = True
            self._joined()
        return True
