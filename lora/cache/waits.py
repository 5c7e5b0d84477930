"""Waits: how long demands were blocked, as a histogram of fixed size."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

BOUNDS_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Upper bounds of the buckets, inclusive; one more bucket takes what is longer."""


class Waits(NamedTuple):
    """Demands by how long they were blocked. Exact counts, so two of them subtract; quantiles are bounds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    """One per bucket of `BOUNDS_S`, then the longer ones."""
    longest_s: float = 0.0

    @property
    def demands(self) -> int:
        return sum(self.counts)

    def quantile_s(self, share: float) -> float | None:
        """What `share` of the demands waited for at most, to the next bound above; None without demands."""
        needed = max(1, math.ceil(share * self.demands))
        for bound_s, reached in zip((*BOUNDS_S, math.inf), accumulate(self.counts), strict=True):
            if reached >= needed:
                return min(bound_s, self.longest_s)
        return None

    def since(self, before: Waits) -> Waits:
        """The demands after `before`. Their longest wait is not known: that of both stands for it, and bounds it."""
        counts = tuple(now - then for then, now in zip(before.counts, self.counts, strict=True))
        return Waits(counts, self.longest_s)


class WaitTally:
    """Counts in place: recording a demand allocates nothing."""

    __slots__ = ("_counts", "_longest_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._longest_s = 0.0

    def count(self, wait_s: float) -> None:
        self._counts[bisect_left(BOUNDS_S, wait_s)] += 1
        self._longest_s = max(self._longest_s, wait_s)

    def waits(self) -> Waits:
        return Waits(tuple(self._counts), self._longest_s)
