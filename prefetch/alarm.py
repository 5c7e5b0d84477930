"""Alarm: a timer that is asked for again and again, and set only when it would ring too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Owned by the event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._set_for_s = 0.0

    def within(self, seconds: float) -> None:
        """Rings once, after `seconds` or earlier."""
        if self._timer is None or seconds < self._set_for_s:
            self.stop()
            self._set_for_s = seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self._go)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go(self) -> None:
        self._timer = None
        self._ring()
