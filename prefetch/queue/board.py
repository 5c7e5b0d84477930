"""QueueBoard: the head of the queue with its references read and resolved, and which jobs have started and gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from ...lora.library.file import AdapterKey
from .book import ReferenceBook
from .job import JobKey, QueuedJob, References
from .lookup import Lookup
from .need import JobNeeds, needs_of

JOBS_IN_SIGHT = 64
"""At least so many jobs are looked at, if there are: eviction that sees 64 is within a point of a perfect future."""
ARRIVING_JOBS = 8
"""Jobs that come into sight together once fewer than `JOBS_IN_SIGHT` are: reading and resolving them costs a trip to a
thread and a new plan each time."""
REBUILD_JOBS = 16
"""Jobs rebuilt between two breaths of the event loop."""


class Observed(NamedTuple):
    """What one look at the queue found."""

    changed: bool
    """Jobs have come, gone or changed places; a job that merely starts keeps its place."""
    ran_unseen: tuple[JobNeeds, ...]
    """Jobs that had their whole turn since the last look."""


class QueueBoard:
    """Owned by the event loop."""

    def __init__(
        self,
        references: Callable[[object], References],
        lookup: Lookup,
        offload: Callable[[Callable[[], References]], Awaitable[References]],
    ) -> None:
        """`offload` computes in a thread."""
        self._book = ReferenceBook(references, offload)
        self._lookup = lookup
        self._jobs: tuple[QueuedJob, ...] = ()
        self._keys: list[JobKey] = []
        self._last: JobKey | None = None
        """Of the whole queue, in sight or not."""
        self._known: dict[JobKey, JobNeeds] = {}
        self._needs: tuple[JobNeeds, ...] | None = ()
        self._started: set[JobKey] = set()
        self._running: set[JobKey] = set()
        self._is_behind = False

    @property
    def is_behind(self) -> bool:
        """Jobs in sight are left to be read, by the next `complete`."""
        return self._is_behind

    @property
    def needs(self) -> tuple[JobNeeds, ...]:
        """Jobs in sight in running order, as far as they are read. The same object while unchanged."""
        if self._needs is None:
            known = self._known
            self._needs = tuple([known[key] for key in self._keys if key in known])
        return self._needs

    def observe(self, visible: Sequence[QueuedJob]) -> Observed:
        """Takes in the queue as it is now, without reading anything."""
        before, self._jobs = self._keys, in_sight(visible, self._known)
        self._is_behind = False
        after = self._keys = [job.key for job in self._jobs]
        last, self._last = self._last, visible[-1].key if visible else None
        self._mark_running()
        if before == after:
            return Observed(False, ())
        self._needs = None
        inside = set(after)
        gone = [key for key in before if key not in inside]
        ran_unseen: tuple[JobNeeds, ...] = ()
        if not self._started.issuperset(gone):
            # A long queue costs to look through. Only when the last in sight is out of sight may others be behind it.
            is_known = before[-1] in inside or len(visible) == len(inside)
            alive = inside if is_known else {job.key for job in visible}
            is_replaced = last not in alive and alive.isdisjoint(before)
            ran_unseen = tuple(self._depart(before, alive, is_replaced=is_replaced))
        for key in gone:
            self._known.pop(key, None)
        self._book.forget(gone)
        self._started.difference_update(gone)
        return Observed(True, ran_unseen)

    async def complete(self, stop: Callable[[], bool]) -> Sequence[JobNeeds]:
        """Reads and resolves what is new; the needs that have changed. It waits for no disk longer than a moment: what
        that finds is taken in at a later call."""
        fresh = [job for job in self._jobs if job.key not in self._known]
        moved = self._lookup.take_landed()
        is_stale = bool(self._jobs) and self._lookup.is_stale
        if not (fresh or moved or is_stale):
            return ()
        read = await self._book.read(fresh)
        self._is_behind = any(job.key not in read for job in fresh)
        asked_for = self._jobs if is_stale else fresh
        asked = {ref.asks for job in asked_for if job.key in read for ref in read[job.key].loras}
        moved |= await self._lookup.find(asked, stop, anew=is_stale)
        changed: list[JobNeeds] = []
        for count, job in enumerate(self._jobs if moved else fresh):
            references = read.get(job.key)
            if references is None:
                continue
            if count % REBUILD_JOBS == REBUILD_JOBS - 1:
                await asyncio.sleep(0)
            needs = needs_of(job, references, self._lookup.known)
            if needs != self._known.get(job.key):
                self._known[job.key] = needs
                self._needs = None
                changed.append(needs)
        return changed

    def running_keys(self) -> frozenset[AdapterKey]:
        """The files of jobs that run."""
        running = takewhile(lambda needs: needs.job.running, self.needs)
        return frozenset[AdapterKey]().union(*(needs.keys for needs in running))

    def newly_started(self) -> tuple[JobNeeds, ...]:
        """Running jobs not reported before."""
        fresh = self._running - self._started
        if not fresh:
            return ()
        started = tuple(needs for needs in self.needs if needs.job.key in fresh)
        self._started.update(needs.job.key for needs in started)
        return started

    def _mark_running(self) -> None:
        """Of the jobs that are known; one that has left needs no mark any more."""
        ran = self._running
        self._running = {job.key for job in takewhile(lambda job: job.running, self._jobs)}
        for key in ran ^ self._running:
            known = self._known.get(key)
            if known is not None:
                self._known[key] = known.marked(running=key in self._running)
                self._needs = None

    def _depart(self, before: Sequence[JobKey], alive: Container[JobKey], *, is_replaced: bool) -> Iterator[JobNeeds]:
        """Jobs that ran and ended between two looks. Jobs run in order, so one that left while an earlier one is still
        there was deleted. `is_replaced`: nobody stayed, so that only the first can have run."""
        somebody_before_stayed = somebody_left = False
        for key in before:
            if key in alive:
                somebody_before_stayed = True
                continue
            needs = self._known.get(key)
            was_deleted = somebody_before_stayed or (is_replaced and somebody_left)
            if needs is not None and key not in self._started and not was_deleted:
                yield needs
            somebody_left = True


def in_sight(visible: Sequence[QueuedJob], known: Container[JobKey]) -> tuple[QueuedJob, ...]:
    """The jobs that are looked at of a queue, with those that were looked at before."""
    jobs = tuple(visible[: JOBS_IN_SIGHT + ARRIVING_JOBS])
    strangers = (place for place, job in enumerate(jobs) if job.key not in known)
    first = next(strangers, len(jobs))
    return jobs if first < JOBS_IN_SIGHT else jobs[:first]
