"""Timetable: when jobs start and how long their files take to read, and from that which fetches are due now.

Just deep enough: what is fetched earlier than it must be moves more bytes, and is wasted when its job is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...lora.library.file import AdapterKey
from .plan import Fetch, FetchKey

MARGIN_JOBS = 2.0
MARGIN_S = 2.0
MARGIN_JUMPS = 2
"""Jobs that may jump the queue: each is read before what was due. They count as the one that takes longest to read."""
SHARED_DISK = 2.0
"""How much longer a read takes beside that of the running job."""


class Due(NamedTuple):
    """What a timetable makes of a plan's fetches."""

    fetches: tuple[Fetch, ...]
    wait_s: float | None
    """Seconds until the next one is due, if nothing changes; None when none is left."""


def one_line(_path: str) -> Hashable:
    """Everything is read one after the other."""
    return None


@dataclass(frozen=True, slots=True)
class Timetable:
    """Estimates at one moment; what is None or missing was not measured yet, and everything it concerns is due."""

    job_s: float | None = None
    rates: Mapping[Hashable, float] = field(default_factory=dict)
    """Bytes per second of each line of files that are read one after the other: those of one disk."""
    elapsed_s: float = 0.0
    """How long the running job has been running."""
    left_s: float | None = None
    """How long it will run at least, by its steps; None: as long as the shortest job did."""
    line_of: Callable[[str], Hashable] = field(default=one_line, compare=False)
    """The line in which the file with that path stands."""

    def due(self, fetches: Sequence[Fetch], rest: Collection[tuple[AdapterKey, int]] = ()) -> Due:
        """Those of `fetches` that have to start now if every job is to find its files, margin included. In order.

        One reader takes a line in order, so a fetch has to start early enough for all that come after it there, and
        `rest` (file, position) comes after all.
        """
        if self.job_s is None or not self.rates:
            return Due(tuple(fetches), None)
        lines: dict[Hashable, list[Fetch]] = {}
        for fetch in fetches:
            lines.setdefault(self.line_of(fetch.file.path), []).append(fetch)
        reads = {line: [(fetch.file.size_bytes, fetch.position) for fetch in its] for line, its in lines.items()}
        line_of = self.line_of
        for key, position in rest:
            reads.setdefault(line_of(key.path), []).append((key.size_bytes, position))
        due: set[FetchKey] = set()
        waits_s: list[float] = []
        for line, its in lines.items():
            count, wait_s = self._due_in_line(reads[line], self.rates.get(line), self.job_s)
            due.update(fetch.key for fetch in its[:count])
            if wait_s is not None:
                waits_s.append(wait_s)
        return Due(tuple(fetch for fetch in fetches if fetch.key in due), min(waits_s, default=None))

    def due_count(self, reads: Sequence[tuple[int, int]]) -> tuple[int, float | None]:
        """Of `reads` (bytes, position of the job) from the slowest disk: how many are due, and the seconds until the
        next one is."""
        if self.job_s is None:
            return len(reads), None
        return self._due_in_line(reads, min(self.rates.values(), default=None), self.job_s)

    def is_urgent(self, fetch: Fetch) -> bool:
        """Whether its job would have to wait for it if it were not read from now on, even beside another read. While
        that cannot be told, it is so for the next job."""
        bytes_per_s = self.rates.get(self.line_of(fetch.file.path))
        if self.job_s is None or bytes_per_s is None:
            return fetch.position <= 1
        return self._starts_in_s(fetch.position, self.job_s) < SHARED_DISK * fetch.file.size_bytes / bytes_per_s

    def _due_in_line(
        self, reads: Sequence[tuple[int, int]], bytes_per_s: float | None, job_s: float
    ) -> tuple[int, float | None]:
        if bytes_per_s is None:
            return len(reads), None
        done_s = 0.0
        slacks: list[float] = []
        jobs_s: dict[int, float] = {}
        next_s = self._starts_in_s(1, job_s)
        for nbytes, position in reads:
            read_s = nbytes / bytes_per_s
            done_s += read_s
            jobs_s[position] = jobs_s.get(position, 0.0) + read_s
            slacks.append((next_s + (position - 1) * job_s if position else 0.0) - done_s)
        margin_s = max(MARGIN_JOBS * job_s, MARGIN_S) + MARGIN_JUMPS * max(jobs_s.values(), default=0.0)
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
        left_s = max(job_s - self.elapsed_s, 0.0) if self.left_s is None else self.left_s
        return left_s + (position - 1) * job_s
