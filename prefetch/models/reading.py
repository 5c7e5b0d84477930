"""ModelReading: one model file being brought into the page cache by a thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...loaders.system.rate_limit import RateLimit
from ..machine import Machine
from ..reading.reading import Outcome, Read, warm_pages
from .plan import ModelFetch

NEGLIGIBLE_SHARE = 16
"""A model of which so little is missing is not read anew: below a balloon pages vanish one by one while memory is
plenty, and gigabytes are not read again for that."""


def negligible_bytes(size_bytes: int) -> int:
    """How much of a model of `size_bytes` may be missing from the page cache, and it is warm all the same."""
    return size_bytes // NEGLIGIBLE_SHARE


class ModelReading(Read):
    """Of a model."""

    def __init__(self, fetch: ModelFetch, limiter: Callable[[], RateLimit | None], clock: Callable[[], float]) -> None:
        super().__init__(fetch.file.path, limiter, clock)
        self.fetch = fetch

    def run(self, machine: Machine) -> Outcome:
        size_bytes = self.fetch.file.size_bytes
        warm = partial(warm_pages, self.path, size_bytes, machine, self._must_stop, self.gate)
        return self._timed(partial(warm, negligible_bytes=negligible_bytes(size_bytes)))
