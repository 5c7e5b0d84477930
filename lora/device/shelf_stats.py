"""What the device shelf tells about itself: immutable numbers and one view per adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..cache.lease import AcquireOutcome
from ..library.file import AdapterKey

ShelfState = Literal["sending", "arriving", "ready"]
"""`sending`: being put into slots. `arriving`: every copy is queued. `ready`: every byte is there."""
ShelfEviction = Literal["demand", "prefetch", "resize", "request", "clear"]


class ShelfView(NamedTuple):
    """One adapter on the device, or on its way there."""

    key: AdapterKey
    nbytes: int
    state: ShelfState
    uses: int
    next_use: int | None


class ShelfStats(NamedTuple):
    """Totals since the shelf was built."""

    hits: int
    joins: int
    misses: int
    wait_s: float
    """Seconds that demanding threads were blocked, those that had to send an adapter themselves included. What a stream
    waits for a copy is not in it: no thread sees that."""
    uploaded_bytes: int
    prefetched_bytes: int
    wasted_bytes: int
    """Prefetched, then dropped before anybody used them."""
    evictions: Mapping[ShelfEviction, int]


class ShelfSnapshot(NamedTuple):
    """Everything at one moment."""

    revision: int
    """Grows with every change that a reader of snapshots can see, but for copies that arrive."""
    device: str
    limit_bytes: int
    used_bytes: int
    peak_bytes: int
    pinned_bytes: int
    """Of the host, for the staging slots."""
    adapters: tuple[ShelfView, ...]
    stats: ShelfStats
    problem: str
    """Why uploads are slower than they could be, or not done at all; "" when nothing is wrong."""


@dataclass(slots=True)
class ShelfTally:
    """The running totals behind `ShelfStats`; written under the lock of the shelf."""

    outcomes: Counter[AcquireOutcome] = field(default_factory=Counter)
    evictions: Counter[ShelfEviction] = field(default_factory=Counter)
    wait_s: float = 0.0
    uploaded_bytes: int = 0
    prefetched_bytes: int = 0
    wasted_bytes: int = 0

    def count(self, outcome: AcquireOutcome, wait_s: float) -> None:
        self.outcomes[outcome] += 1
        self.wait_s += wait_s

    def stats(self) -> ShelfStats:
        return ShelfStats(
            hits=self.outcomes["hit"],
            joins=self.outcomes["join"],
            misses=self.outcomes["miss"],
            wait_s=self.wait_s,
            uploaded_bytes=self.uploaded_bytes,
            prefetched_bytes=self.prefetched_bytes,
            wasted_bytes=self.wasted_bytes,
            evictions=dict(self.evictions),
        )
