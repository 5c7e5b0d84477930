"""make_plan: which files to warm, in which tier and order, for the jobs in the queue. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..lora.file import AdapterKey, LoraFile
from .need import JobNeeds, Need, Tier


class FetchKey(NamedTuple):
    """Identity of one piece of warming: a resident adapter and warm pages of the same file are two."""

    key: AdapterKey
    tier: Tier


@dataclass(frozen=True, slots=True)
class Fetch:
    """One file to warm. `position` is that of the first job that needs it; 0 is running or next."""

    file: LoraFile
    tier: Tier
    position: int

    @property
    def key(self) -> FetchKey:
        return FetchKey(self.file.key, self.tier)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be warmed. A tier with None is switched off."""

    resident_bytes: int | None
    page_bytes: int | None
    depth_jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Warm:
    """What need not be fetched (again)."""

    resident: Container[AdapterKey] = frozenset()
    pages: Container[AdapterKey] = frozenset()
    failed: Container[AdapterKey] = frozenset()
    no_room: Container[AdapterKey] = frozenset()
    """Adapters that the cache has refused for now: their pages are warmed instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`fetches` in the order in which to start them; the rest of the visible queue is warm, refused or too far."""

    fetches: tuple[Fetch, ...] = ()
    wanted: frozenset[FetchKey] = frozenset()
    """Everything that some visible job has a use for, warm or not: a read of anything else may stop."""
    next_uses: Mapping[AdapterKey, int] = field(default_factory=dict)
    """Position of the first job that acquires the adapter from the cache."""


def make_plan(jobs: Sequence[JobNeeds], limits: Limits, warm: Warm) -> Plan:
    """Earliest need first, each tier just as deep as its bytes reach. `jobs` in running order, running first."""
    fetches: list[Fetch] = []
    wanted: set[FetchKey] = set()
    next_uses: dict[AdapterKey, int] = {}
    room = {"resident": limits.resident_bytes or 0, "page": limits.page_bytes or 0}
    open_tiers = {tier for tier in room if room[tier] > 0}
    for position, file, tier, reads_cache in _uses(jobs, limits, warm):
        if reads_cache:
            next_uses.setdefault(file.key, position)
        fetch = Fetch(file, tier, position)
        if fetch.key in wanted:
            continue
        wanted.add(fetch.key)
        if tier not in open_tiers or (limits.depth_jobs is not None and position > limits.depth_jobs):
            continue
        room[tier] -= file.size_bytes
        if room[tier] < 0 and position > 0:
            open_tiers.discard(tier)
        elif file.key not in (warm.resident if tier == "resident" else warm.pages) and file.key not in warm.failed:
            fetches.append(fetch)
    return Plan(tuple(fetches), frozenset(wanted), next_uses)


def tier_of(need: Need, limits: Limits, no_room: Container[AdapterKey] = frozenset()) -> Tier | None:
    """Where the file of `need` belongs; None when it must not be read in the background (a pickle, a broken header)."""
    file = need.file
    if file is None or file.is_pickle or file.problem:
        return None
    fits = limits.resident_bytes is not None and file.size_bytes <= limits.resident_bytes and file.key not in no_room
    if need.reference.resident and fits:
        return "resident"
    return None if limits.page_bytes is None else "page"


def _uses(jobs: Sequence[JobNeeds], limits: Limits, warm: Warm) -> Iterator[tuple[int, LoraFile, Tier, bool]]:
    for position, job in enumerate(jobs):
        for need in job.needs:
            tier = tier_of(need, limits, warm.no_room)
            if need.file is not None and tier is not None:
                yield position, need.file, tier, need.reference.resident
