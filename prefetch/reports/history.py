"""JobHistory: the last jobs that ended, and what each found of the LoRAs that it asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..queue.job import JobKey
from ..status import JobRecord, PageStatus

if TYPE_CHECKING:
    from ...lora.cache.cache_stats import CacheStats

KEPT_JOBS = 50


class Demands(NamedTuple):
    """Running totals of both tiers."""

    hits: int = 0
    joins: int = 0
    misses: int = 0
    wait_s: float = 0.0
    load_s: float = 0.0
    page_hits: int = 0
    page_joins: int = 0
    page_misses: int = 0

    def since(self, before: Demands) -> Demands:
        return Demands._make(now - then for then, now in zip(before, self, strict=True))


class JobHistory:
    """Owned by the event loop. Jobs run one at a time: what the totals grew by while a job ran is that job's. A job
    that had its whole turn between two looks leaves no record."""

    def __init__(self) -> None:
        self._records: deque[JobRecord] = deque(maxlen=KEPT_JOBS)
        self._running: tuple[JobKey, ...] = ()
        self._since = self._seen = Demands()

    def observe(self, running: Sequence[JobKey], totals: Demands, now_s: float) -> None:
        """The jobs that run at `now_s`, and the totals of this moment."""
        ended = [job for job in self._running if job not in running]
        # The look that first shows a job may already count its loads: the job before ends with what was seen of it.
        until = self._seen if running else totals
        for job in ended:
            self._records.append(JobRecord(job.job_id, now_s, *until.since(self._since)))
            self._since = until
        if not self._running:
            self._since = self._seen
        self._running, self._seen = tuple(running), totals

    def records(self) -> tuple[JobRecord, ...]:
        """Oldest first."""
        return tuple(self._records)


def demands(cached: CacheStats, page: PageStatus) -> Demands:
    """The totals of the cache and of the page tier."""
    return Demands(
        cached.hits, cached.joins, cached.misses, cached.wait_s, cached.load_s, page.hits, page.joins, page.misses
    )
