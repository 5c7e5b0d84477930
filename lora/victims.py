"""Which resident adapters to give up: a pure choice over what the queue and the past tell about each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .file import AdapterKey


class Candidate(NamedTuple):
    """A resident adapter that nobody leases and nobody pinned."""

    key: AdapterKey
    nbytes: int
    next_use: int | None
    """Position in the visible queue of the next job that names it; None when no job does."""
    credit: float
    """Age of the cache at its last use plus its seconds of cold read per byte: the higher, the dearer to lose."""
    last_used_s: float


def eviction_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """First to go first: no known next use (least credit, then least recently used), then the furthest next use."""
    return sorted(candidates, key=_rank)


def choose_victims(candidates: Iterable[Candidate], needed_bytes: int) -> list[Candidate]:
    """The first of `eviction_order` that together free `needed_bytes`; all of them when that is not enough."""
    victims: list[Candidate] = []
    for candidate in eviction_order(candidates):
        if needed_bytes <= 0:
            break
        victims.append(candidate)
        needed_bytes -= candidate.nbytes
    return victims


def yields_to_prefetch(candidate: Candidate, next_use: int | None) -> bool:
    """Whether a prefetch for queue position `next_use` may displace `candidate`: do no harm. A prefetch that no queued
    job asked for (None) lives in free space alone.
    """
    return next_use is not None and _distance(candidate) > next_use


def _distance(candidate: Candidate) -> float:
    return math.inf if candidate.next_use is None else candidate.next_use


def _rank(candidate: Candidate) -> tuple[float, float, float]:
    return -_distance(candidate), candidate.credit, candidate.last_used_s
