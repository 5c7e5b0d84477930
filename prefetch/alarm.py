"""Alarm: a timer that is asked for again and again, and set only when it would ring too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Owned by the event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """Rings once, after `seconds` or earlier."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + seconds
        if self._timer is None or self._timer.when() > at_s:
            self.stop()
            self._timer = loop.call_at(at_s, self._go)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go(self) -> None:
        self._timer = None
        self._ring()
