"""Pace: how fast jobs go by and files come in, and from that which fetches are due now.

Just deep enough: what is fetched earlier than it must be moves more bytes, and is wasted when its job is cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .plan import Fetch

REMEMBERED = 8
"""Measurements that count; of them the worst, since a job that waits costs more than bytes moved early."""
MARGIN_JOBS = 2.0
MARGIN_S = 2.0
TIMED_BYTES = 1 << 20
"""Reading less says more about the disk's latency than about its rate."""


class Due(NamedTuple):
    """What a pace makes of a plan's fetches."""

    fetches: tuple[Fetch, ...]
    wait_s: float | None
    """Seconds until the next one is due, if nothing changes; None when none is left."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Estimates at one moment; None: not measured yet, and everything is due."""

    job_s: float | None = None
    bytes_per_s: float | None = None
    elapsed_s: float = 0.0
    """How long the running job has been running."""

    def due(self, fetches: Sequence[Fetch]) -> Due:
        """The first of `fetches` that have to start now if every job is to find its files, margin included."""
        count, wait_s = self.due_count([(fetch.file.size_bytes, fetch.position) for fetch in fetches])
        return Due(tuple(fetches[:count]), wait_s)

    def due_count(self, reads: Sequence[tuple[int, int]]) -> tuple[int, float | None]:
        """Of `reads` (bytes, position of the job): how many are due, and the seconds until the next one is.

        One reader takes them in order, so a read has to start early enough for all that come after it.
        """
        if self.job_s is None or self.bytes_per_s is None:
            return len(reads), None
        done_s = 0.0
        slacks: list[float] = []
        for nbytes, position in reads:
            done_s += nbytes / self.bytes_per_s
            slacks.append(self._starts_in_s(position, self.job_s) - done_s)
        margin_s = max(MARGIN_JOBS * self.job_s, MARGIN_S)
        least_s = float("inf")
        wait_s: float | None = None
        for i in reversed(range(len(slacks))):
            least_s = min(least_s, slacks[i])
            if least_s <= margin_s:
                return i + 1, wait_s
            wait_s = least_s - margin_s
        return 0, wait_s

    def _starts_in_s(self, position: int, job_s: float) -> float:
        if position == 0:
            return 0.0
        return max(job_s - self.elapsed_s, 0.0) + (position - 1) * job_s


class PaceMeter:
    """Measures jobs and reads. Owned by the event loop."""

    def __init__(self) -> None:
        self._jobs_s: deque[float] = deque(maxlen=REMEMBERED)
        self._rates: deque[float] = deque(maxlen=REMEMBERED)
        self._running: dict[str, float] = {}

    def observe(self, running: Sequence[str], now_s: float) -> None:
        """The ids of the jobs that run at `now_s`. One that was running and is not any more has ended."""
        for job_id in [job_id for job_id in self._running if job_id not in running]:
            self._jobs_s.append(now_s - self._running.pop(job_id))
        for job_id in running:
            self._running.setdefault(job_id, now_s)

    def count_read(self, nbytes: int, seconds: float) -> None:
        """A file has been read in the background."""
        if nbytes >= TIMED_BYTES and seconds > 0:
            self._rates.append(nbytes / seconds)

    def pace(self, now_s: float) -> Pace:
        started_s = min(self._running.values(), default=now_s)
        return Pace(min(self._jobs_s, default=None), min(self._rates, default=None), now_s - started_s)
