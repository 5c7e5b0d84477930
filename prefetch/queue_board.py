"""QueueBoard: the head of the queue with its references read and resolved, and which jobs have started and gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from .book import ReferenceBook
from .job import QueuedJob, References
from .need import JobNeeds, Resolution, needs_of
from .resolver import Resolver

T = TypeVar("T")

HORIZON_JOBS = 256
"""Jobs looked at, however long the queue. Eviction that sees 64 jobs is within a point of a perfect future."""
RESTAT_S = 2.0
"""How late a replaced file may be noticed while it is being waited for; a demand always looks for itself."""
REFRESH_S = 10.0
"""Least time between two scans for a name that is missing."""
REBUILD_JOBS = 64
"""Jobs rebuilt between two breaths of the event loop."""


class Offload(Protocol):
    """Runs a blocking call in a thread."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


class Departure(NamedTuple):
    """A job that has left the queue."""

    needs: JobNeeds
    ran_unseen: bool
    """It had its turn between two looks. Jobs that were seen running, or taken out before their turn, did not."""


class QueueBoard:
    """Owned by the event loop."""

    def __init__(
        self,
        references: Callable[[object], References],
        resolver: Resolver,
        offload: Offload,
        clock: Callable[[], float],
    ) -> None:
        self._book = ReferenceBook(references, offload)
        self._resolver = resolver
        self._offload = offload
        self._clock = clock
        self._jobs: tuple[QueuedJob, ...] = ()
        self._needs: dict[str, JobNeeds] = {}
        self._started: set[str] = set()
        self._resolutions: dict[str, Resolution] = {}
        self._revision: int | None = None
        self._resolved_at_s = 0.0
        self._refreshed_at_s = clock()

    @property
    def needs(self) -> tuple[JobNeeds, ...]:
        """Jobs of the horizon in running order, as far as their references are read."""
        return tuple(self._needs[job.job_id] for job in self._jobs if job.job_id in self._needs)

    def observe(self, visible: Sequence[QueuedJob]) -> tuple[Departure, ...]:
        """Takes in the queue as it is now, without reading anything; the jobs that have left since."""
        previous, self._jobs = self._jobs, tuple(visible[:HORIZON_JOBS])
        alive = {job.job_id for job in visible}
        departed: list[Departure] = []
        somebody_before_stayed = False
        for job in previous:
            if job.job_id in alive:
                somebody_before_stayed = True
                continue
            # Who overtakes a job that is still there was taken out; so was, but for the first, a queue gone at once.
            taken_out = somebody_before_stayed or (not alive and departed)
            if job.job_id in self._needs:
                ran_unseen = job.job_id not in self._started and not taken_out
                departed.append(Departure(self._needs.pop(job.job_id), ran_unseen))
        for job in self._jobs:
            known = self._needs.get(job.job_id)
            if known is not None and known.job.running != job.running:
                self._needs[job.job_id] = replace(known, job=job)
        self._book.forget(self._jobs)
        self._started &= alive
        return tuple(departed)

    async def complete(self, stop: Callable[[], bool]) -> bool:
        """Reads and resolves what is new; True when the needs of some job have changed."""
        read = await self._book.read(self._jobs)
        fresh = await self._resolve(read, stop)
        changed = False
        for count, job in enumerate(self._jobs):
            known = self._needs.get(job.job_id)
            if job.job_id not in read or (known is not None and not fresh):
                continue
            if count % REBUILD_JOBS == REBUILD_JOBS - 1:
                await asyncio.sleep(0)
            needs = needs_of(job, read[job.job_id], self._resolutions)
            changed = changed or needs != known
            self._needs[job.job_id] = needs
        return changed

    def newly_started(self) -> tuple[JobNeeds, ...]:
        """Running jobs not reported before."""
        started = [n for n in self.needs if n.job.running and n.job.job_id not in self._started]
        self._started.update(n.job.job_id for n in started)
        return tuple(started)

    def wants_refresh(self) -> bool:
        """True, at most every `REFRESH_S`, while a visible job names a file that the catalog does not know."""
        now_s = self._clock()
        if now_s - self._refreshed_at_s < REFRESH_S:
            return False
        missing = any(need.resolution.state == "missing" for job in self._needs.values() for need in job.needs)
        if missing:
            self._refreshed_at_s = now_s
        return missing

    async def _resolve(self, read: Mapping[str, References], stop: Callable[[], bool]) -> bool:
        """True when a name that was known resolves differently now."""
        names = {ref.name for job in self._jobs if job.job_id in read for ref in read[job.job_id].loras}
        self._resolutions = {name: found for name, found in self._resolutions.items() if name in names}
        now_s, revision = self._clock(), self._resolver.revision
        everything = revision != self._revision or now_s - self._resolved_at_s >= RESTAT_S
        asked = names if everything else names - self._resolutions.keys()
        if not asked:
            return False
        resolved = await self._offload(lambda: self._resolver.resolve(asked, stop))
        changed = any(self._resolutions.get(name, found) != found for name, found in resolved.items())
        self._resolutions |= resolved
        if everything:
            self._revision, self._resolved_at_s = revision, now_s
        return changed
