"""HostQueue: the host's queue at one moment, as the prefetcher reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, overload

from ...prefetch.queue.job import QueuedJob

Item = tuple[Any, ...]
"""Number, id, prompt, extra data, outputs to execute, and what may hold API keys and is never touched."""

_turn = itemgetter(0, 1)
"""The heap's order: number, then id."""


class HostQueue(Sequence[QueuedJob]):
    """Running jobs, then pending ones in execution order; the payload is (prompt, outputs to execute).

    A job is made when it is asked for: of the thousands that somebody may queue, dozens are looked at, four times a
    second, on the loop that serves the host's pages.
    """

    def __init__(self, running: Iterable[Item], pending: Iterable[Item]) -> None:
        self._items = sorted(running, key=_turn)
        self._running = len(self._items)
        self._items += sorted(pending, key=_turn)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> QueuedJob: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[QueuedJob, ...]: ...

    def __getitem__(self, place: int | slice) -> QueuedJob | tuple[QueuedJob, ...]:
        places = range(len(self._items))[place]
        return tuple(map(self._job, places)) if isinstance(places, range) else self._job(places)

    def _job(self, place: int) -> QueuedJob:
        number, job_id, prompt, _, outputs, *_ = self._items[place]
        return QueuedJob(job_id, (prompt, outputs), running=place < self._running, ticket=number)
