"""ModelReading: one model file being brought into the page cache by a thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ..loaders.rate_limit import RateLimit
from .machine import Machine
from .model_plan import ModelFetch
from .reading import Meter, Outcome, warm_pages


class ModelReading:
    """Made on the event loop, `run` in a thread. Both `pause` and `cancel` take effect within one chunk; a read that
    was paused goes on where it stopped."""

    def __init__(self, fetch: ModelFetch, limiter: Callable[[], RateLimit | None], clock: Callable[[], float]) -> None:
        self.fetch = fetch
        self._gate = _Gate(limiter, clock)
        self.meter = Meter(lambda: self._gate)
        self.has_begun = False
        self._cancel = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        return self._cancel.is_set()

    def pause(self) -> None:
        self._gate.is_open.clear()

    def resume(self) -> None:
        self._gate.is_open.set()

    def cancel(self) -> None:
        self._cancel.set()
        self.resume()

    def run(self, machine: Machine) -> Outcome:
        self.has_begun = True
        if self.is_cancelled:
            return Outcome("cancelled")
        started_s, file = machine.clock(), self.fetch.file
        outcome = warm_pages(file.path, file.size_bytes, machine, self._cancel.is_set, self.meter)
        return outcome._replace(seconds=machine.clock() - started_s - self._gate.paused_s)


class _Gate(RateLimit):
    """Holds chunks back while it is closed, then passes them on to the limit that holds at the moment."""

    def __init__(self, limiter: Callable[[], RateLimit | None], clock: Callable[[], float]) -> None:
        super().__init__(math.inf)
        self.is_open = threading.Event()
        self.is_open.set()
        self.paused_s = 0.0
        self._limiter = limiter
        self._clock = clock

    def spend(self, nbytes: int, cancelled: Callable[[], bool] | None = None) -> None:
        if not self.is_open.is_set():
            stopped_s = self._clock()
            self.is_open.wait()
            self.paused_s += self._clock() - stopped_s
        limiter = self._limiter()
        if limiter is not None:
            limiter.spend(nbytes, cancelled)
