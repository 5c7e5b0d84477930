"""Eviction policies: pure rankings of what could be given up. `NextUse` is ours, the others are to compare with."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from ..library.file import AdapterKey


class Candidate(NamedTuple):
    """A resident adapter that nobody leases and nobody pinned."""

    key: AdapterKey
    nbytes: int
    next_use: int | None
    """Position in the visible queue of the next job that names it; None when no job does."""
    age: float
    """The cache's age at its last use."""
    cold_read_s: float
    """Seconds that a demand would wait for it again; 0 when never measured."""
    uses: int
    """Demands since it came in."""
    last_used_s: float

    @property
    def is_unasked(self) -> bool:
        """A guess, or what a cancelled job left: nobody has used it and no queued job will."""
        return self.uses == 0 and self.next_use is None


class EvictionPolicy(Protocol):
    """Without state: the cache keeps what a policy ranks by, so that one may be swapped for another."""

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        """Sort key; the least goes first."""

    def worth(self, candidate: Candidate) -> float:
        """The age of the cache once `candidate` had to go. What is used from then on is worth that much more, so that
        nothing stays for what it was worth long ago. Always 0 for a policy that does not age."""


class NextUse:
    """Furthest next use in the visible queue first: Belady's MIN in a window (IBM Systems Journal 5(2), 1966). What the
    window does not show goes before it, least worth first: GreedyDual-Size (Cao and Irani, USITS 1997) with the seconds
    of a cold read as cost.
    """

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        distance = math.inf if candidate.next_use is None else candidate.next_use
        return -distance, self.worth(candidate), candidate.last_used_s

    def worth(self, candidate: Candidate) -> float:
        return candidate.age + candidate.cold_read_s / max(candidate.nbytes, 1)


class Lru:
    """Least recently used first."""

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        return (candidate.last_used_s,)

    def worth(self, candidate: Candidate) -> float:
        return 0.0


class Lfu:
    """Least frequently used since it came in first (in-cache LFU: Breslau et al., INFOCOM 1999), then LRU."""

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        return candidate.uses, candidate.last_used_s

    def worth(self, candidate: Candidate) -> float:
        return 0.0


class Gdsf:
    """GreedyDual-Size with Frequency at one cost per miss: age + uses / bytes (Cherkasova, HPL-98-69R1, 1998)."""

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        return self.worth(candidate), candidate.last_used_s

    def worth(self, candidate: Candidate) -> float:
        return candidate.age + candidate.uses / max(candidate.nbytes, 1)
