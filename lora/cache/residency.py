"""Residency: what the cache knows about one adapter that is in memory, by itself or because somebody uses it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import NamedTuple

from ..library.file import LoraFile
from .adapter import Adapter
from .policies import Candidate


class Holds:
    """How many leases an adapter has. It does not know the adapter: the ends of leases queue up until the next cache
    operation, and a queue that kept adapters alive would keep their memory too."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclass(slots=True, eq=False)
class Residency:
    """Mutable, under the lock of the cache."""

    file: LoraFile
    adapter_ref: weakref.ref[Adapter]
    resident: Adapter | None
    """The cache's own reference. None for a streamed adapter, and for one that was dropped while leased: these live as
    long as their leases do."""
    last_used_s: float
    age: float = 0.0
    """The cache's age at its last use."""
    uses: int = 0
    """Demands so far: dropped before the first, its bytes were wasted."""
    holds: Holds = field(default_factory=Holds)

    @property
    def nbytes(self) -> int:
        """What it takes from the budget: the whole file, reserved before its data section was known."""
        return self.file.size_bytes

    def candidate(self, next_use: int | None, cold_read_s: float) -> Candidate:
        """As what a policy ranks it."""
        return Candidate(
            key=self.file.key,
            nbytes=self.nbytes,
            next_use=next_use,
            age=self.age,
            cold_read_s=cold_read_s,
            uses=self.uses,
            last_used_s=self.last_used_s,
        )


class Held(NamedTuple):
    """A residency together with a reference that keeps its adapter alive while a lease is being made."""

    residency: Residency
    adapter: Adapter
