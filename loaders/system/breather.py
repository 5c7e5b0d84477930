"""Breather: work that is all Python lets other threads have the interpreter now and then."""

from __future__ import annotations

import threading
import time

_WORK_S = 0.001
_PAUSE_S = 20e-6
"""Long enough for a waiting thread to wake up. Less, or 0, and the one that pauses takes the interpreter back first."""


class Breather:
    """One piece of such work. The interpreter changes hands on its own only every 5 ms, which an event loop beside a
    load feels as so much delay. The main thread never pauses: while it works, no loop is waiting as a rule."""

    def __init__(self) -> None:
        self._in_background = threading.current_thread() is not threading.main_thread()
        self._since_s = time.perf_counter()

    def breathe(self) -> None:
        """Pause if the work has gone on for 1 ms. Called every hundred steps or so: it reads a clock."""
        if self._in_background and time.perf_counter() - self._since_s > _WORK_S:
            time.sleep(_PAUSE_S)
            self._since_s = time.perf_counter()
