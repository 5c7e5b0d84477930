"""RateLimit: a ceiling on bytes per second, shared by every reader that is given the same object."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..cancelling import Cancelled, never

_SLICE_S = 0.05
"""How long a cancelled reader may go on sleeping."""


class RateLimit:
    """Spaces reads so that at most `bytes_per_s` pass on average; thread-safe."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"bytes_per_s must be above 0, not {bytes_per_s}")
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until_s = 0.0

    def spend(self, nbytes: int, cancelled: Cancelled | None = None) -> None:
        """Return once `nbytes` more are within the rate, or soon after `cancelled()` turns true; the rest of a
        cancelled wait is given back to the others."""
        cancelled = cancelled or never
        cost_s = nbytes / self.bytes_per_s
        with self._lock:
            due_s = self._paid_until_s = max(self._paid_until_s, self._clock()) + cost_s
        while (left_s := due_s - self._clock()) > 0:
            if cancelled():
                with self._lock:
                    self._paid_until_s -= min(left_s, cost_s)
                return
            self._sleep(min(left_s, _SLICE_S))
