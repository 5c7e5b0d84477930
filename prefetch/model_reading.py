"""ModelReading: one model file being brought into the page cache by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..loaders.rate_limit import RateLimit
from .gate import Gate
from .machine import Machine
from .model_plan import ModelFetch
from .reading import Meter, Outcome, warm_pages


class ModelReading:
    """Made on the event loop, `run` in a thread. Both `pause` and `cancel` take effect within one chunk; a read that
    was paused goes on where it stopped."""

    def __init__(self, fetch: ModelFetch, limiter: Callable[[], RateLimit | None]) -> None:
        self.fetch = fetch
        self.has_begun = False
        self._gate = Gate()
        self._cancel = threading.Event()
        self.meter = Meter(limiter, self._gate, self._cancel.is_set)

    @property
    def is_cancelled(self) -> bool:
        return self._cancel.is_set()

    def pause(self) -> None:
        self._gate.close()

    def resume(self) -> None:
        self._gate.open()

    def cancel(self) -> None:
        self._cancel.set()

    def run(self, machine: Machine) -> Outcome:
        self.has_begun = True
        if self.is_cancelled:
            return Outcome("cancelled")
        started_s, file = machine.clock(), self.fetch.file
        outcome = warm_pages(file.path, file.size_bytes, machine, self._cancel.is_set, self.meter)
        return outcome._replace(seconds=machine.clock() - started_s - self._gate.held_s)
