"""PageTally: what the page-cache tier did for the jobs that started, and what it read for nothing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Set
from dataclasses import dataclass, field

from ...lora.file import AdapterKey
from .status import PageStatus


@dataclass(slots=True)
class PageTally:
    """Owned by the event loop."""

    hits: int = 0
    joins: int = 0
    misses: int = 0
    demand_bytes: int = 0
    hit_bytes: int = 0
    warmed_bytes: int = 0
    wasted_bytes: int = 0
    warmed_s: float = 0.0
    unclaimed: dict[AdapterKey, int] = field(default_factory=dict)
    """Bytes warmed per file for which no job has started yet."""

    def count_warmed(self, key: AdapterKey, nbytes: int, seconds: float, *, claimed: bool) -> None:
        """`claimed`: a job that needs the file is running already."""
        self.warmed_bytes += nbytes
        self.warmed_s += seconds
        if not claimed:
            self.unclaimed[key] = self.unclaimed.get(key, 0) + nbytes

    def count_demand(self, key: AdapterKey, ready: Container[AdapterKey], loading: Container[AdapterKey]) -> None:
        """A job that reads the file through the page cache has started."""
        self.demand_bytes += key.size_bytes
        if key in ready:
            self.hits += 1
            self.hit_bytes += key.size_bytes
        elif key in loading:
            self.joins += 1
        else:
            self.misses += 1
        self.unclaimed.pop(key, None)

    def claim(self, keys: Iterable[AdapterKey]) -> None:
        """Jobs that need these are running."""
        for key in keys:
            self.unclaimed.pop(key, None)

    def write_off(self, *needed: Set[AdapterKey]) -> None:
        """What was warmed for jobs that are gone, none of which ran, was wasted."""
        for key in set(self.unclaimed).difference(*needed):
            self.wasted_bytes += self.unclaimed.pop(key)

    def status(self) -> PageStatus:
        return PageStatus(
            hits=self.hits,
            joins=self.joins,
            misses=self.misses,
            demand_bytes=self.demand_bytes,
            hit_bytes=self.hit_bytes,
            warmed_bytes=self.warmed_bytes,
            wasted_bytes=self.wasted_bytes,
            warmed_s=self.warmed_s,
        )
