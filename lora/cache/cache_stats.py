"""What the cache tells about itself: immutable numbers and one view per adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import AdapterLoadError
from ..library.file import AdapterKey, LoraFile
from .lease import AcquireOutcome
from .waits import Waits, WaitTally

if TYPE_CHECKING:
    from .flight import Flight
    from .residency import Residency

AdapterState = Literal["loading", "ready", "failed"]
EvictionReason = Literal["demand", "prefetch", "resize", "request", "clear", "stale"]
"""`demand` and `prefetch`: to make room for one. `stale`: its file has changed or gone."""


class AdapterView(NamedTuple):
    """One adapter as the cache sees it now."""

    key: AdapterKey
    name: str
    nbytes: int
    state: AdapterState
    pinned: bool
    next_use: int | None
    """Position in the queue of the next job that uses it."""
    storage: str = ""
    """`private`, `mapped`, or "" while there is nothing to store."""
    leases: int = 0
    waiting: int = 0
    """Demands that wait for its load."""
    hits: int = 0
    last_used_s: float | None = None
    """By the clock of the cache."""
    problem: str = ""
    """Why it failed, in one line without a path."""


class CacheStats(NamedTuple):
    """Totals since the cache was built. A demand is one `acquire` that got its adapter."""

    hits: int
    joins: int
    misses: int
    wait_s: float
    """Seconds that demands were blocked."""
    load_s: float
    """Seconds that the same demands would have been blocked if each had read its file cold."""
    read_bytes: int
    prefetched_bytes: int
    wasted_bytes: int
    """Prefetched, then dropped before anybody used them."""
    failures: int
    """Remembered now."""
    evictions: Mapping[EvictionReason, int]
    waits: Waits = Waits()
    demand_bytes: int = 0
    """Bytes of all demands, each time anew."""
    read_s: float = 0.0
    """Seconds that the reads took, without those for which a limit held them back. A streamed adapter takes none: its
    pages are read where it is used."""
    pollution: int = 0
    """Misses that an LRU cache of the same size without prefetch would have spared: what prefetch displaced."""

    @property
    def hidden_share(self) -> float | None:
        """Share of the load time that nobody waited for; None before the first demand whose cold read was measured."""
        return None if self.load_s <= 0 else max(0.0, 1 - self.wait_s / self.load_s)


class CacheSnapshot(NamedTuple):
    """Everything at one moment."""

    revision: int
    """Grows with every change that a reader of snapshots can see."""
    limit_bytes: int
    used_bytes: int
    peak_bytes: int
    adapters: tuple[AdapterView, ...]
    stats: CacheStats
    spare_bytes: int = 0
    """Memory of evicted adapters, beside the budget, that the next load takes or the next look at memory gives back."""


@dataclass(slots=True)
class Tally:
    """The running totals behind `CacheStats`; written under the lock of the cache."""

    outcomes: Counter[AcquireOutcome] = field(default_factory=Counter)
    evictions: Counter[EvictionReason] = field(default_factory=Counter)
    wait_s: float = 0.0
    load_s: float = 0.0
    read_bytes: int = 0
    prefetched_bytes: int = 0
    wasted_bytes: int = 0
    waits: WaitTally = field(default_factory=WaitTally)
    demand_bytes: int = 0
    read_s: float = 0.0
    pollution: int = 0
    _shown: CacheStats | None = None
    """What `stats` gave since the last change: it is asked for at every look at the queue."""

    def count(self, outcome: AcquireOutcome, nbytes: int, wait_s: float, load_s: float, *, in_shadow: bool) -> None:
        """`in_shadow`: the shadow cache would have had it."""
        self._shown = None
        self.outcomes[outcome] += 1
        self.wait_s += wait_s
        self.load_s += load_s
        self.waits.count(wait_s)
        self.demand_bytes += nbytes
        self.pollution += in_shadow and outcome == "miss"

    def count_read(self, nbytes: int, seconds: float, *, prefetched: bool) -> None:
        self._shown = None
        self.read_bytes += nbytes
        self.read_s += seconds
        self.prefetched_bytes += nbytes if prefetched else 0

    def count_eviction(self, reason: EvictionReason, wasted_bytes: int) -> None:
        self._shown = None
        self.evictions[reason] += 1
        self.wasted_bytes += wasted_bytes

    def stats(self, failures: int) -> CacheStats:
        if self._shown is None or self._shown.failures != failures:
            self._shown = self._stats(failures)
        return self._shown

    def _stats(self, failures: int) -> CacheStats:
        return CacheStats(
            hits=self.outcomes["hit"],
            joins=self.outcomes["join"],
            misses=self.outcomes["miss"],
            wait_s=self.wait_s,
            load_s=self.load_s,
            read_bytes=self.read_bytes,
            prefetched_bytes=self.prefetched_bytes,
            wasted_bytes=self.wasted_bytes,
            failures=failures,
            evictions=dict(self.evictions),
            waits=self.waits.waits(),
            demand_bytes=self.demand_bytes,
            read_s=self.read_s,
            pollution=self.pollution,
        )


def view_adapters(
    flights: Iterable[Flight],
    failures: Iterable[tuple[LoraFile, AdapterLoadError]],
    residencies: Iterable[Residency],
    pinned_paths: Collection[str],
    next_use: Mapping[AdapterKey, int],
) -> Iterator[AdapterView]:
    def view(file: LoraFile, state: AdapterState) -> AdapterView:
        pinned = file.path in pinned_paths
        return AdapterView(file.key, file.name, file.size_bytes, state, pinned, next_use.get(file.key))

    for flight in flights:
        yield view(flight.file, "loading")._replace(waiting=flight.demands)
    for file, error in failures:
        yield view(file, "failed")._replace(problem=error.reason)
    for residency in residencies:
        adapter = residency.adapter_ref()
        if adapter is not None:
            yield view(residency.file, "ready")._replace(
                storage=adapter.storage,
                leases=residency.holds.count,
                hits=residency.uses,
                last_used_s=residency.last_used_s,
            )
