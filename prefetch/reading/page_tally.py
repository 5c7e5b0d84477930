"""PageTally: what the page-cache tier did for the jobs that started, and what it read for nothing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Set

from ...lora.library.file import AdapterKey
from ..status import PageStatus


class PageTally:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self.figures = PageStatus()
        self.unclaimed: dict[AdapterKey, int] = {}
        """Bytes warmed per file for which no job has started yet."""

    def count_warmed(self, key: AdapterKey, nbytes: int, seconds: float, *, claimed: bool) -> None:
        """`claimed`: a job that needs the file is running already."""
        before = self.figures
        self.figures = before._replace(warmed_bytes=before.warmed_bytes + nbytes, warmed_s=before.warmed_s + seconds)
        if not claimed:
            self.unclaimed[key] = self.unclaimed.get(key, 0) + nbytes

    def count_demand(self, key: AdapterKey, ready: Container[AdapterKey], loading: Container[AdapterKey]) -> None:
        """A job that reads the file through the page cache has started."""
        before = self.figures
        demanded = before._replace(demand_bytes=before.demand_bytes + key.size_bytes)
        if key in ready:
            self.figures = demanded._replace(hits=before.hits + 1, hit_bytes=before.hit_bytes + key.size_bytes)
        elif key in loading:
            self.figures = demanded._replace(joins=before.joins + 1)
        else:
            self.figures = demanded._replace(misses=before.misses + 1)
        self.unclaimed.pop(key, None)

    def claim(self, keys: Iterable[AdapterKey]) -> None:
        """Jobs that need these are running."""
        for key in keys:
            self.unclaimed.pop(key, None)

    def write_off(self, *needed: Set[AdapterKey]) -> None:
        """What was warmed for jobs that are gone, none of which ran, was wasted."""
        wasted_bytes = sum([self.unclaimed.pop(key) for key in set(self.unclaimed).difference(*needed)])
        if wasted_bytes:
            self.figures = self.figures._replace(wasted_bytes=self.figures.wasted_bytes + wasted_bytes)
