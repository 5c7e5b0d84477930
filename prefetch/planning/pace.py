"""PaceMeter: how fast jobs go by, and how fast files come in from every disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence

from .steps import Steps
from .timetable import Timetable, one_line

REMEMBERED = 8
"""Measurements that count; of them the worst, since a job that waits costs more than bytes moved early."""
TIMED_BYTES = 1 << 20
"""Reading less says more about the disk's latency than about its rate."""


class PaceMeter:
    """Measures jobs and reads. Owned by the event loop."""

    def __init__(self, line_of: Callable[[str], Hashable] = one_line) -> None:
        self._line_of = line_of
        self._jobs_s: deque[float] = deque(maxlen=REMEMBERED)
        self._rates: dict[Hashable, deque[float]] = {}
        self._running: dict[Hashable, float] = {}
        self._steps = Steps()

    def observe(self, running: Sequence[Hashable], now_s: float, progress: float | None = None) -> None:
        """The jobs that run at `now_s`, and how far their steps are, 0 to 1. A job that was running and is
        not any more has ended."""
        ended = [job for job in self._running if job not in running]
        for job in ended:
            self._jobs_s.append(now_s - self._running.pop(job))
        for job in running:
            self._running.setdefault(job, now_s)
        if ended:
            self._steps = Steps()
        self._steps.observe(progress if running else None, now_s)

    def count_read(self, nbytes: int, seconds: float, path: str = "", *, beside: int = 1) -> None:
        """The file at `path` has been read in the background, as one of `beside` that shared its disk."""
        if nbytes >= TIMED_BYTES and seconds > 0:
            rates = self._rates.setdefault(self._line_of(path), deque(maxlen=REMEMBERED))
            rates.append(beside * nbytes / seconds)

    def timetable(self, now_s: float) -> Timetable:
        """What has been measured, for jobs from `now_s` on."""
        started_s = min(self._running.values(), default=now_s)
        rates = {line: min(rates) for line, rates in self._rates.items()}
        left_s = self._steps.left_s(now_s)
        return Timetable(min(self._jobs_s, default=None), rates, now_s - started_s, left_s, self._line_of)
