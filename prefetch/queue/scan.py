"""LibraryScan: looks the folders through when the server starts, and when a job names a file that nobody knows or that
could not be opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .need import JobNeeds
from .resolver import Resolver

REFRESH_S = 10.0
"""Least time from the end of a scan to the next, for a name that is missing."""
DOUBT_S = 30.0
"""The same for a file that could not be opened: a drive that is away for a while keeps each scan waiting."""
LONGEST_DOUBT_S = 480.0
"""Each scan that opens it no more than the last doubles the time to the next, up to this: rights may be lacking."""


class LibraryScan:
    """Owned by the event loop. One at a time: a second would wait for the first, in a thread that others need."""

    def __init__(
        self,
        resolver: Resolver,
        offload: Callable[[Callable[[], Any]], Awaitable[Any]],
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[None, None, None]], None],
        ended: Callable[[], None],
    ) -> None:
        """`offload` runs a blocking call in a thread; `spawn` runs a coroutine beside everything else."""
        self._resolver = resolver
        self._offload = offload
        self._clock = clock
        self._spawn = spawn
        self._ended = ended
        self._is_going_on = False
        self._ended_at_s = float("-inf")
        self._doubt_s = DOUBT_S
        self._searched: tuple[JobNeeds, ...] | None = None
        """Needs in which nothing was missing or in doubt."""

    @property
    def is_going_on(self) -> bool:
        """Headers of new files are being read, by threads that nobody else counts."""
        return self._is_going_on

    def start(self) -> None:
        """Begins one, unless one is going on."""
        if not self._is_going_on:
            self._is_going_on = True
            self._spawn(self._scan())

    def follow(self, jobs: tuple[JobNeeds, ...]) -> None:
        """Begins one, at most every `REFRESH_S`, while one of `jobs` names a file that the catalog does not know; more
        seldom while one could not be opened."""
        if self._is_going_on or jobs is self._searched:
            return
        rested_s = self._clock() - self._ended_at_s
        if rested_s < REFRESH_S:
            return
        if any(need.resolution.state == "missing" for job in jobs for need in job.needs):
            self.start()
        elif not any(need.file and self._resolver.is_doubtful(need.file) for job in jobs for need in job.needs):
            self._searched = jobs
            self._doubt_s = DOUBT_S
        elif rested_s >= self._doubt_s:
            self._doubt_s = min(2 * self._doubt_s, LONGEST_DOUBT_S)
            self.start()

    async def _scan(self) -> None:
        try:
            await self._offload(self._resolver.refresh)
        finally:
            self._is_going_on = False
            self._ended_at_s = self._clock()
        self._ended()
