"""Horizon: which visible job uses each file first, kept in step with the queue instead of being read anew per plan."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from operator import itemgetter

from ..lora.file import AdapterKey, LoraFile
from .need import JobNeeds, Tier, Use
from .plan import Fetch, Limits, Plan, Warm, tier_of

_USES_PER_JOB = 1 << 20
"""A ticket is the ordinal of a job times this, plus the place of the use in the job: tickets sort as needs do."""


class _Uses:
    """Uses of one kind. `first` holds the ticket of each file's earliest use, `files` the files themselves."""

    def __init__(self) -> None:
        self.first: dict[AdapterKey, int] = {}
        self.files: dict[AdapterKey, LoraFile] = {}
        self.total_bytes = 0
        self._later: dict[AdapterKey, deque[int]] = {}

    def append(self, use: Use, ticket: int) -> None:
        """`ticket` is later than every other."""
        if use.key in self.first:
            self._later.setdefault(use.key, deque()).append(ticket)
        else:
            self.first[use.key] = ticket
            self.files[use.key] = use.file
            self.total_bytes += use.file.size_bytes

    def pop(self, key: AdapterKey) -> None:
        """Forgets the earliest use of `key`."""
        later = self._later.get(key)
        if later:
            self.first[key] = later.popleft()
            return
        self._later.pop(key, None)
        del self.first[key]
        self.total_bytes -= self.files.pop(key).size_bytes

    def parted(self, limits: Limits, warm: Warm) -> tuple[_Uses, _Uses]:
        """Those that may be resident, and those that have to do with warm pages."""
        kept, spilled = _Uses(), _Uses()
        limit_bytes = limits.resident_bytes
        if limit_bytes is not None and not warm.no_room:
            # The usual case, without a look at each.
            if self.total_bytes <= limit_bytes or all(file.size_bytes <= limit_bytes for file in self.files.values()):
                return self, spilled
        for key, ticket in self.first.items():
            use = Use(key, self.files[key], True)
            (kept if tier_of(use, limits, warm.no_room) == "resident" else spilled).append(use, ticket)
        return kept, spilled

    def merged(self, others: _Uses) -> _Uses:
        if not others.first:
            return self
        both = _Uses()
        for uses in (self, others):
            for key, ticket in uses.first.items():
                if key not in both.first:
                    both.append(Use(key, uses.files[key], False), ticket)
                both.first[key] = min(both.first[key], ticket)
        return both


class Horizon:
    """`follow` the queue, then ask for a `plan`. Owned by the event loop.

    Most looks at a queue find its first job gone and a new last one: that costs by the job, not by the horizon.
    """

    def __init__(self) -> None:
        self._jobs: tuple[JobNeeds, ...] = ()
        self._head = 0
        """Ordinal of the first job."""
        self._acquired = _Uses()
        """What our own readers take from the cache."""
        self._read = _Uses()
        """What everybody else reads through the page cache."""

    def follow(self, jobs: Sequence[JobNeeds]) -> None:
        """Takes in the visible jobs as they are now, in running order, running first."""
        previous, self._jobs = self._jobs, tuple(jobs)
        gone = _gone_from_the_front(previous, self._jobs)
        for job in previous[:gone]:
            for use in job.uses:
                self._uses_of(use).pop(use.key)
        self._head += gone
        stayed = len(previous) - gone
        for ordinal, job in enumerate(self._jobs[stayed:], self._head + stayed):
            for ticket, use in enumerate(job.uses, ordinal * _USES_PER_JOB):
                self._uses_of(use).append(use, ticket)

    def plan(self, limits: Limits, warm: Warm) -> Plan:
        """Earliest need first, each tier just as deep as its bytes reach."""
        resident, spilled = self._acquired.parted(limits, warm)
        fetches = self._fetches(resident, "resident", limits.resident_bytes, limits, warm.resident, warm)
        pages = _Uses()
        if limits.page_bytes is not None:
            pages = self._read.merged(spilled)
            fetches += self._fetches(pages, "page", limits.page_bytes, limits, warm.pages, warm)
            fetches.sort(key=itemgetter(0))
        return Plan(
            tuple(fetch for _, fetch in fetches),
            frozenset(resident.first),
            frozenset(pages.first),
            {key: self._position(ticket) for key, ticket in self._acquired.first.items()},
        )

    def _uses_of(self, use: Use) -> _Uses:
        return self._acquired if use.resident else self._read

    def _position(self, ticket: int) -> int:
        return ticket // _USES_PER_JOB - self._head

    def _fetches(
        self,
        uses: _Uses,
        tier: Tier,
        limit_bytes: int | None,
        limits: Limits,
        warmed: Collection[AdapterKey],
        warm: Warm,
    ) -> list[tuple[int, Fetch]]:
        end = self._end_of_reach(uses, limit_bytes or 0)
        if limits.depth_jobs is not None:
            end = min(end, (self._head + limits.depth_jobs + 1) * _USES_PER_JOB)
        cold = set(uses.first).difference(warmed, warm.failed)
        due = sorted((uses.first[key], key) for key in cold if uses.first[key] < end)
        return [(ticket, Fetch(uses.files[key], tier, self._position(ticket))) for ticket, key in due]

    def _end_of_reach(self, uses: _Uses, limit_bytes: int) -> float:
        """The first ticket that is out of reach.

        What is warm counts too, so that a plan stays right while its fetches are carried out. The first file that does
        not fit ends the reach, so that nothing overtakes it; the first job gets its own.
        """
        if limit_bytes <= 0:
            return 0
        if uses.total_bytes > limit_bytes:
            left_bytes = limit_bytes
            for key, ticket in sorted(uses.first.items(), key=itemgetter(1)):
                left_bytes -= uses.files[key].size_bytes
                if left_bytes < 0 and self._position(ticket) > 0:
                    return ticket
        return math.inf


def make_plan(jobs: Sequence[JobNeeds], limits: Limits, warm: Warm) -> Plan:
    """The plan for a queue seen once. `jobs` in running order, running first."""
    horizon = Horizon()
    horizon.follow(jobs)
    return horizon.plan(limits, warm)


def _gone_from_the_front(before: tuple[JobNeeds, ...], after: tuple[JobNeeds, ...]) -> int:
    """How many jobs of `before` have to go so that the others are the beginning of `after`."""
    first = after[0].needs if after else None
    for gone, job in enumerate(before):
        if job.needs is first and len(before) - gone <= len(after):
            # A job that has merely started is another object with the same needs.
            if all(old.needs is new.needs for old, new in zip(before[gone:], after, strict=False)):
                return gone
    return len(before)
