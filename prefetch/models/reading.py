"""ModelReading: one model file being brought into the page cache by a thread."""

from __future__ import annotations

from collections.abc import Callable

from ...loaders.rate_limit import RateLimit
from ..machine import Machine
from ..reading.gate import Gate
from ..reading.reading import Outcome, warm_pages
from .plan import ModelFetch

NEGLIGIBLE_SHARE = 16
"""A model of which so little is missing is not read anew: below a balloon pages vanish one by one while memory is
plenty, and gigabytes are not read again for that."""


def negligible_bytes(size_bytes: int) -> int:
    """How much of a model of `size_bytes` may be missing from the page cache, and it is warm all the same."""
    return size_bytes // NEGLIGIBLE_SHARE


class ModelReading:
    """Made on the event loop, `run` in a thread. Both `pause` and `cancel` take effect within one chunk; a read that
    was paused goes on where it stopped."""

    def __init__(
        self,
        fetch: ModelFetch,
        limiter: Callable[[], RateLimit | None],
        clock: Callable[[], float],
    ) -> None:
        self.fetch = fetch
        self.has_begun = False
        self.is_cancelled = False
        self.gate = Gate(limiter, self._must_stop, clock=clock)

    def pause(self) -> None:
        self.gate.is_open = False

    def resume(self) -> None:
        self.gate.is_open = True

    def cancel(self) -> None:
        self.is_cancelled = True

    def run(self, machine: Machine) -> Outcome:
        self.has_begun = True
        if self.is_cancelled:
            return Outcome("cancelled")
        started_s = self.gate.passed_at_s = machine.clock()
        file = self.fetch.file
        outcome = warm_pages(
            file.path,
            file.size_bytes,
            machine,
            self._must_stop,
            self.gate,
            negligible_bytes=negligible_bytes(file.size_bytes),
        )
        ended_s = machine.clock()
        return outcome._replace(
            seconds=ended_s - started_s - self.gate.held_s, last_chunk_s=ended_s - self.gate.passed_at_s
        )

    def _must_stop(self) -> bool:
        return self.is_cancelled
