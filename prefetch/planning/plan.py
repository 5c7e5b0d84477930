"""Plan: which files to warm, in which tier and order. `Horizon` makes it; what is guessed is added here. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...lora.library.file import AdapterKey, LoraFile
from ..queue.need import Tier, Use

UNQUEUED = 1 << 30
"""Position of what no visible job needs."""


class FetchKey(NamedTuple):
    """Identity of one piece of warming: a resident adapter and warm pages of the same file are two."""

    key: AdapterKey
    tier: Tier


class Fetch(NamedTuple):
    """One file to warm. `position` is that of the first job that needs it; 0 is running or next."""

    file: LoraFile
    tier: Tier
    position: int

    @property
    def key(self) -> FetchKey:
        return FetchKey(self.file.key, self.tier)


class Limits(NamedTuple):
    """How much may be warmed. A tier with None is switched off."""

    resident_bytes: int | None
    page_bytes: int | None
    depth_jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Warm:
    """What need not be fetched (again)."""

    resident: Set[AdapterKey] = frozenset()
    pages: Collection[AdapterKey] = frozenset()
    failed: Collection[AdapterKey] = frozenset()
    no_room: Set[AdapterKey] = frozenset()
    """Adapters that the cache has refused for now: their pages are warmed instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`fetches` in the order in which to start them, and later `rest`; the others are warm, refused or too far.

    The depth counts what is warm as well, so a plan stays right while its fetches are carried out.
    """

    fetches: tuple[Fetch, ...] = ()
    resident: frozenset[AdapterKey] = frozenset()
    """Everything that some visible job has a use for in this tier, warm or not: a read of anything else may stop."""
    pages: frozenset[AdapterKey] = frozenset()
    next_uses: Mapping[AdapterKey, int] = field(default_factory=dict)
    """Position of the first job that acquires the adapter from the cache."""
    rest: Collection[tuple[AdapterKey, int]] = ()
    """File and position of what is to be read after those of `fetches` that lie on its disk. The next plan names it."""

    def wants(self, key: FetchKey) -> bool:
        return key.key in (self.resident if key.tier == "resident" else self.pages)


def speculate(plan: Plan, uses: Sequence[Use], limits: Limits, warm: Warm) -> Plan:
    """`plan` with what somebody will probably queue. Without a next use, nothing is evicted for it."""
    fetches: list[Fetch] = []
    wanted: dict[Tier, set[AdapterKey]] = {"resident": set(), "page": set()}
    depth = {"resident": _Depth(limits.resident_bytes), "page": _Depth(limits.page_bytes)}
    for use in uses:
        tier = tier_of(use, limits, warm.no_room)
        if tier is None or plan.wants(FetchKey(use.key, tier)) or not depth[tier].takes(use.file.size_bytes):
            continue
        wanted[tier].add(use.key)
        if use.key not in (warm.resident if tier == "resident" else warm.pages) and use.key not in warm.failed:
            fetches.append(Fetch(use.file, tier, UNQUEUED))
    return replace(
        plan,
        fetches=(*plan.fetches, *fetches),
        resident=plan.resident | wanted["resident"],
        pages=plan.pages | wanted["page"],
    )


def tier_of(use: Use, limits: Limits, no_room: Container[AdapterKey] = frozenset()) -> Tier | None:
    """Where the file belongs; None when no tier that could take it is on."""
    limit_bytes = limits.resident_bytes
    if use.via_cache and limit_bytes is not None and use.file.size_bytes <= limit_bytes and use.key not in no_room:
        return "resident"
    return None if limits.page_bytes is None else "page"


class _Depth:
    """How far ahead one tier still reaches."""

    __slots__ = ("_is_open", "_left_bytes")

    def __init__(self, limit_bytes: int | None) -> None:
        self._left_bytes = limit_bytes or 0
        self._is_open = self._left_bytes > 0

    def takes(self, nbytes: int) -> bool:
        """The first file that does not fit ends the reach, so that nothing overtakes it."""
        self._left_bytes -= nbytes
        if self._left_bytes < 0:
            self._is_open = False
        return self._is_open
