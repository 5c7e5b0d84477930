"""LastingForecast: a forecast that goes on after a restart where it stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from ...lora.library.catalog import LoraCatalog
from ..machine import Machine
from ..pool import Pool
from ..queue.need import JobNeeds
from ..settings import PrefetchSettings
from .forecast import Forecast
from .habit_memory import HabitMemory
from .habits import Habits, Run
from .predictor import LoRAPrefetchPredictor

KEEP_EVERY_S = 10.0
"""What a killed process forgets; short jobs must not write a file each."""


class LastingForecast(Forecast):
    """Reads and writes in `chores`, and only once guessing is allowed: who never allows it leaves no trace."""

    def __init__(
        self,
        catalog: LoraCatalog,
        machine: Machine,
        chores: Pool,
        call_soon: Callable[[Callable[[], None]], None],
        found: Callable[[], None],
    ) -> None:
        """`found` is called on the loop when the past is known."""
        super().__init__(catalog)
        self._clock = machine.clock
        self._chores = chores
        self._call_soon = call_soon
        self._found = found
        self._memory = HabitMemory(machine.state_folder)
        self._is_recalling = self._has_recalled = self._is_fresh = False
        self._kept_at_s = float("-inf")
        self._newest: tuple[Run, ...] = ()
        self._writing = threading.Lock()

    def record(self, needs: JobNeeds) -> None:
        super().record(needs)
        self._is_fresh |= bool(needs.uses)

    def follow(self, settings: PrefetchSettings) -> None:
        """Once per look at the queue: recalls what was known, keeps what is new."""
        if not settings.predict:
            return
        if not self._is_recalling:
            self._is_recalling = True
            with suppress(RuntimeError):  # the end has come
                self._chores.submit(self._recall).add_done_callback(self._landed)
        elif self._clock() - self._kept_at_s >= KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """What is new, now. Nothing before the past is known: it would be overwritten."""
        if self._has_recalled and self._is_fresh:
            self._is_fresh, self._kept_at_s = False, self._clock()
            self._newest = tuple(self._habits)
            with suppress(RuntimeError):
                self._chores.submit(self._write)

    def _recall(self) -> tuple[Habits, LoRAPrefetchPredictor]:
        past, predictor = self._memory.recall(), LoRAPrefetchPredictor()
        predictor.learn(past.stacks())
        return past, predictor

    def _landed(self, recalled: Future[tuple[Habits, LoRAPrefetchPredictor]]) -> None:
        if not recalled.cancelled() and not recalled.exception():
            self._call_soon(lambda: self._take_past(*recalled.result()))

    def _take_past(self, past: Habits, predictor: LoRAPrefetchPredictor) -> None:
        self._has_recalled = True
        self.go_on_from(past, predictor)
        self._found()

    def _write(self) -> None:
        with self._writing:
            # Of two that wait in two threads either may come first: both write the newest.
            self._memory.keep(self._newest)
