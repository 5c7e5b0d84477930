"""The one line that a finished batch leaves in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ...lora.cache.waits import Waits
from ..status import PageStatus, PrefetchStatus

logger = logging.getLogger(__name__)

LEAST_JOBS = 2
"""A single job says nothing about reading ahead, and most people queue one at a time."""


class BatchLog:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._started_jobs = 0
        self._before: PrefetchStatus | None = None
        self._first_waits = Waits()

    def count_starts(self, jobs: int) -> None:
        self._started_jobs += jobs

    def look(self, queued_jobs: int, waits: Waits, status: Callable[[], PrefetchStatus]) -> None:
        """Leaves the line when the queue has run dry. `waits`: as the cache counts them now."""
        if queued_jobs:
            self._before = self._before or status()
            # Not the look that first shows the second job: it may already count that one's demands.
            if self._started_jobs <= 1:
                self._first_waits = waits
            return
        jobs, self._started_jobs = self._started_jobs, 0
        before, self._before = self._before, None
        line = None if before is None else batch_line(jobs, before, status(), self._first_waits)
        if line is not None:
            logger.info("%s", line)


def batch_line(jobs: int, before: PrefetchStatus, after: PrefetchStatus, first: Waits) -> str | None:
    """What `jobs` jobs between two statuses found; None when there is nothing worth a line. `first`: the waits when the
    first of them had made its demands, which nobody could foresee."""
    page = PageStatus._make(b - a for a, b in zip(before.page, after.page, strict=True))
    hits, joins, misses = after.hits - before.hits, after.joins - before.joins, after.misses - before.misses
    if jobs < LEAST_JOBS or not (hits + joins + misses + page.hits + page.joins + page.misses):
        return None
    parts = []
    if hits + joins + misses:
        wait_s, load_s = after.wait_s - before.wait_s, after.load_s - before.load_s
        hidden = f", {max(0.0, 1 - wait_s / load_s):.0%} of {load_s:.1f} s hidden" if load_s > 0 else ""
        parts.append(f"adapters {hits} hit, {joins} joined, {misses} missed{hidden}{_waited(after.waits.since(first))}")
    if page.demand_bytes:
        parts.append(
            f"page cache {page.hits} hit, {page.joins} joined, {page.misses} missed, {page.hidden_share or 0:.0%} of "
            f"{page.demand_bytes / (1 << 20):.0f} MiB in time"
        )
    wasted_bytes = after.wasted_bytes - before.wasted_bytes
    return f"{jobs} jobs: {'; '.join(parts)}; {wasted_bytes / (1 << 20):.0f} MiB read in vain"


def _waited(waits: Waits) -> str:
    p50_s, p99_s = waits.quantile_s(0.5), waits.quantile_s(0.99)
    if p50_s is None or p99_s is None:
        return ""
    return f", waits after the first job p50 {_milliseconds(p50_s)}, p99 {_milliseconds(p99_s)}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
