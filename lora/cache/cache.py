"""AdapterCache: LoRA files in memory under a byte budget, each loaded once, none taken from under its user."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from ...loaders.cancelling import Cancelled, never
from ...loaders.memory.spare_memory import SpareMemory
from ...loaders.reading.tensor_file import Storage
from ...loaders.system.rate_limit import RateLimit
from ..errors import AdapterLoadCancelledError, AdapterLoadError, AdapterUnavailableError
from ..library.file import AdapterKey, LoraFile, as_on_disk
from .adapter import Adapter, load_adapter
from .budget import ByteBudget, Reservation
from .cache_stats import CacheSnapshot, CacheStats, EvictionReason, Tally, view_adapters
from .cold_reads import ColdReads
from .failures import Failures
from .flight import Flight
from .lease import AcquireOutcome, Lease
from .loading import LoadAdapter, PrefetchOutcome, timed_load
from .policies import Candidate, EvictionPolicy, NextUse
from .residency import Held, Holds, Residency
from .shadow import ShadowCache
from .victims import choose_victims, victims_that_free, yields_to_prefetch

Urgency = tuple[EvictionReason, int | None]
"""Why room is made, and the queue position of the next job that uses what it is for."""

SPARE_BYTES = 256 << 20
"""Memory of evicted adapters that is kept beside the budget, for what they were evicted for."""


class AdapterCache:
    """Thread-safe. `acquire` and `prefetch` block while they read; everything else returns at once.

    The lock is never held while a file is read or a buffer freed. Ends of leases arrive through a deque, since a
    finalizer may run inside any allocation and must not take a lock.
    """

    def __init__(
        self,
        budget: ByteBudget,
        *,
        load: LoadAdapter | None = None,
        clock: Callable[[], float] = time.monotonic,
        policy: EvictionPolicy | None = None,
    ) -> None:
        """`policy` defaults to `NextUse`. Whatever it ranks, what is leased or pinned stays and a prefetch displaces
        nothing that is needed sooner."""
        self.budget = budget
        self._spare = SpareMemory(SPARE_BYTES)
        self._load = load or partial(load_adapter, spare=self._spare)
        self._clock = clock
        self._policy = policy or NextUse()
        self._lock = threading.Lock()
        self._residencies: dict[AdapterKey, Residency] = {}
        self._flights: dict[AdapterKey, Flight] = {}
        self._failures = Failures()
        self._cold_reads = ColdReads()
        self._pinned_paths: set[str] = set()
        self._next_use: Mapping[AdapterKey, int] = {}
        self._ended: deque[Holds] = deque()
        self._tally = Tally()
        self._shadow = ShadowCache()
        self._age = 0.0
        self._revision = 0

    def acquire(self, file: LoraFile, *, cancelled: Cancelled = never) -> Lease:
        """A lease on what `file.path` holds now, loading it if nobody has. A load that finds no room in the budget
        hands out mapped views, which reserve nothing.

        Raises AdapterLoadError (the same until the file changes), AdapterUnavailableError when the file is gone, and
        AdapterLoadCancelledError once `cancelled()` is true before the adapter is there.
        """
        started_s = self._clock()
        current = self._on_disk(file)
        outcome: AcquireOutcome = "hit"
        while True:
            with self._lock:
                self._settle()
                held = self._find(current.key)
                if held is not None:
                    held.residency.holds.count += 1
                    return self._lease(held, outcome, started_s)
                self._failures.raise_for(current)
                leads = current.key not in self._flights
                flight = self._board(current, cancelled, demand=True)
            outcome = "miss" if leads else "join"
            held = self._fly(flight) if leads else self._ride(flight, cancelled)
            if held is not None:
                with self._lock:
                    return self._lease(held, outcome, started_s)

    def borrow(self, key: AdapterKey) -> Lease | None:
        """A lease on what is in memory that is nobody's demand; None when it is not there."""
        with self._lock:
            self._settle()
            held = self._find(key)
            if held is not None:
                held.residency.holds.count += 1
        return held and Lease(held.adapter, "hit", 0.0, partial(self._ended.append, held.residency.holds))

    def prefetch(
        self, file: LoraFile, *, cancelled: Cancelled = never, limiter: RateLimit | None = None
    ) -> PrefetchOutcome:
        """Makes `file` resident if there is room beside what the queue needs sooner. Never opens a pickle ("failed").

        `limiter` slows this read only until a demand joins it; from then on `cancelled` counts no longer either.
        "already": resident, or somebody is loading it. "unavailable": not this time, and nothing is remembered.
        """
        if file.is_pickle:
            return "failed"
        try:
            current = self._on_disk(file)
            with self._lock:
                self._settle()
                self._failures.raise_for(current)
                held = self._find(current.key)
                if (held is not None and held.residency.resident is not None) or current.key in self._flights:
                    return "already"
                flight = self._board(current, cancelled, demand=False)
            return "no_room" if self._fly(flight, limiter) is None else "ready"
        except AdapterLoadCancelledError:
            return "cancelled"
        except AdapterUnavailableError:
            return "unavailable"
        except AdapterLoadError:
            return "failed"

    def reserve_beside(self, nbytes: int) -> Reservation | None:
        """Memory for what is kept beside adapters; it displaces only those that no queued job names. None: no room."""
        return self._reserve(nbytes, lambda: ("prefetch", sys.maxsize))

    def plan_uses(self, next_use: Mapping[AdapterKey, int]) -> None:
        """Replaces what is known of the queue: key -> position of the next job that uses it, running job first. It is
        kept as it is and must not change afterwards: most of its positions are never asked for."""
        with self._lock:
            self._next_use = next_use
            self._revision += 1

    def record_cold_read(self, key: AdapterKey, seconds: float) -> None:
        """What a demand for `key` would have waited without us. The slowest read seen counts: later ones were warm."""
        with self._lock:
            self._cold_reads.record(key, seconds)

    def pin(self, key: AdapterKey) -> None:
        """Keeps the file from eviction while it is resident, also after it has changed."""
        with self._lock:
            self._pinned_paths.add(key.path)
            self._revision += 1

    def unpin(self, key: AdapterKey) -> None:
        with self._lock:
            self._pinned_paths.discard(key.path)
            self._revision += 1

    def evict(self, key: AdapterKey) -> bool:
        """Drops one adapter; False when it is not resident, leased or pinned."""
        with self._lock:
            self._settle()
            found = self._residencies.get(key)
            if found is None or not self._is_evictable(found):
                return False
            dropped = self._drop(found, "request")
            self._shadow.drop(key)
        del dropped
        return True

    def clear(self) -> None:
        """Lets go of everything, pinned adapters and remembered failures too. What is leased lives as long as its
        leases, and its bytes stay reserved that long."""
        with self._lock:
            self._settle()
            dropped = [self._drop(found, "clear") for found in list(self._residencies.values())]
            self._failures.clear()
            self._shadow = ShadowCache()
        del dropped
        self.release_spare()

    def release_spare(self) -> None:
        """Gives the memory of evicted adapters back. Blocks for some milliseconds."""
        self._spare.release()

    def resize(self, limit_bytes: int) -> None:
        """Sets the budget's limit and evicts down to it, as far as leases and pins allow."""
        self.budget.resize(limit_bytes)
        while self._evict_for(0, ("resize", None)):
            pass
        self.release_spare()

    def stats(self) -> CacheStats:
        with self._lock:
            return self._tally.stats(len(self._failures))

    def snapshot(self) -> CacheSnapshot:
        with self._lock:
            self._settle()
            loaded = self._residencies.values()
            views = view_adapters(self._flights.values(), self._failures, loaded, self._pinned_paths, self._next_use)
            return CacheSnapshot(
                revision=self._revision,
                limit_bytes=self.budget.limit_bytes,
                used_bytes=self.budget.used_bytes,
                peak_bytes=self.budget.peak_bytes,
                adapters=tuple(views),
                stats=self._tally.stats(len(self._failures)),
                spare_bytes=self._spare.held_bytes,
            )

    # Below, what is not said to block or to take the lock runs under it.

    def _on_disk(self, file: LoraFile) -> LoraFile:
        """`file` with the identity it has now. Takes the lock; drops what was cached under an older one."""
        current = as_on_disk(file)
        self._drop_stale(file.path, None if current is None else current.key)
        if current is None:
            raise AdapterUnavailableError(file.name, "the file is gone; put it back or refresh the list")
        return current

    def _drop_stale(self, path: str, key: AdapterKey | None) -> None:
        with self._lock:
            stale = [r for k, r in self._residencies.items() if k.path == path and k != key]
            dropped = [self._drop(found, "stale") for found in stale]
            self._failures.forget_older(path, key)
        del dropped

    def _settle(self) -> None:
        """Takes in the leases that ended since the last operation."""
        if not self._ended:
            return
        while self._ended:
            self._ended.popleft().count -= 1
        self._residencies = {key: found for key, found in self._residencies.items() if found.adapter_ref() is not None}
        self._revision += 1

    def _find(self, key: AdapterKey) -> Held | None:
        """The live adapter of `key`. One dropped while leased still has its bytes reserved: it is kept again."""
        found = self._residencies.get(key)
        adapter = found.adapter_ref() if found is not None else None
        if found is None or adapter is None:
            return None
        if adapter.storage == "private":
            found.resident = adapter
        return Held(found, adapter)

    def _board(self, file: LoraFile, cancelled: Cancelled, *, demand: bool) -> Flight:
        """The flight of `file`, which takes off with its first passenger."""
        flight = self._flights.setdefault(file.key, Flight(file))
        flight.board(cancelled, demand=demand)
        self._revision += 1
        return flight

    def _lease(self, held: Held, outcome: AcquireOutcome, started_s: float) -> Lease:
        """Turns a hold that was already counted into a lease."""
        residency, adapter = held
        now_s = self._clock()
        cold_s = self._cold_reads.seconds(residency.file.key)
        residency.uses += 1
        residency.last_used_s = now_s
        residency.age = self._age
        in_shadow = self._shadow.demand(residency.file.key, residency.nbytes, self.budget.limit_bytes)
        self._tally.count(outcome, adapter.nbytes, now_s - started_s, cold_s, in_shadow=in_shadow)
        self._revision += 1
        return Lease(adapter, outcome, now_s - started_s, partial(self._ended.append, residency.holds))

    def _ride(self, flight: Flight, cancelled: Cancelled) -> Held | None:
        """Blocks until somebody else's flight has landed; None when it was abandoned."""
        landed = False
        try:
            landed = flight.wait(cancelled)
        finally:
            if not landed:
                self._leave(flight, cancelled)
        if not landed:
            raise AdapterLoadCancelledError(flight.file.name, "cancelled")
        if flight.error is not None:
            raise type(flight.error)(flight.error.name, flight.error.reason)
        with self._lock:
            return flight.claim()

    def _leave(self, flight: Flight, cancelled: Cancelled) -> None:
        with self._lock:
            if not flight.landed:
                flight.leave(cancelled)
                self._revision += 1
            elif (held := flight.claim()) is not None:
                self._ended.append(held.residency.holds)

    def _fly(self, flight: Flight, limiter: RateLimit | None = None) -> Held | None:
        """Blocks: loads the file and lands the flight, whatever happens. None when a prefetch found no room."""
        held: Held | None = None
        failure: AdapterLoadError | None = None
        try:
            reservation = self._reserve(flight.file.size_bytes, partial(self._urgency, flight))
            if reservation is not None or flight.demands:
                held = self._admit(flight, reservation, limiter)
        except AdapterLoadCancelledError:
            raise
        except AdapterLoadError as error:
            # A new one: this one's traceback holds the frames of the load, and those its buffers.
            failure = type(error)(error.name, error.reason)
            raise
        finally:
            self._land(flight, held, failure)
        return held

    def _admit(self, flight: Flight, reservation: Reservation | None, limiter: RateLimit | None) -> Held:
        adapter = None if reservation is None else self._read_resident(flight, reservation, limiter)
        resident = adapter
        if adapter is None:
            adapter = self._read(flight, "mapped", None)
        return Held(Residency(flight.file, weakref.ref(adapter), resident, self._clock()), adapter)

    def _read_resident(self, flight: Flight, reservation: Reservation, limiter: RateLimit | None) -> Adapter | None:
        """None when the memory is not there although the budget had room, and a demand should stream instead."""
        try:
            adapter = self._read(flight, "private", limiter)
            reservation.release_with(adapter.buffer)
        except AdapterUnavailableError:
            reservation.release()
            if not flight.demands:
                raise
            return None
        except BaseException:
            reservation.release()
            raise
        return adapter

    def _read(self, flight: Flight, storage: Storage, limiter: RateLimit | None) -> Adapter:
        adapter, flight.read_s = timed_load(self._load, flight, storage, limiter, self._clock)
        self.record_cold_read(flight.file.key, flight.read_s)
        return adapter

    def _land(self, flight: Flight, held: Held | None, failure: AdapterLoadError | None) -> None:
        with self._lock:
            del self._flights[flight.file.key]
            if held is not None:
                held.residency.holds.count = flight.demands
                self._residencies[flight.file.key] = held.residency
                self._tally.count_read(held.adapter.nbytes, flight.read_s, prefetched=not flight.demands)
            if failure is not None:
                self._failures.note(flight.file, failure)
            flight.land(held, failure)
            self._revision += 1

    def _urgency(self, flight: Flight) -> Urgency:
        return "demand" if flight.demands else "prefetch", self._next_use.get(flight.file.key)

    def _reserve(self, nbytes: int, urgency: Callable[[], Urgency]) -> Reservation | None:
        """Reserves `nbytes`, evicting what must yield to them. Takes the lock."""
        while (reservation := self.budget.try_reserve(nbytes)) is None:
            if nbytes > self.budget.limit_bytes or not self._evict_for(nbytes, urgency()):
                return None
        return reservation

    def _evict_for(self, nbytes: int, urgency: Urgency) -> bool:
        """Gives up what must yield, so that `nbytes` more fit; False when there is no more room for it. Takes the lock.

        For somebody it is all or nothing; for a smaller limit every byte counts.
        """
        reason, next_use = urgency
        with self._lock:
            self._settle()
            short_bytes = self.budget.used_bytes + nbytes - self.budget.limit_bytes
            candidates = [
                candidate
                for candidate in map(self._candidate, filter(self._is_evictable, self._residencies.values()))
                if reason != "prefetch" or yields_to_prefetch(candidate, next_use)
            ]
            choose = choose_victims if reason == "resize" else victims_that_free
            victims = choose(candidates, short_bytes, self._policy)
            if victims is None:
                return False
            dropped = [self._drop(self._residencies[victim.key], reason) for victim in victims]
            self._age = max([self._age, *map(self._policy.worth, victims)])
        # Freed here, outside the lock: unmapping hundreds of megabytes takes milliseconds. What others let go of since
        # the caller asked is room too.
        return bool(dropped) or (reason != "resize" and short_bytes <= 0)

    def _is_evictable(self, found: Residency) -> bool:
        return found.resident is not None and found.holds.count == 0 and found.file.path not in self._pinned_paths

    def _candidate(self, found: Residency) -> Candidate:
        key = found.file.key
        return found.candidate(self._next_use.get(key), self._cold_reads.seconds(key))

    def _drop(self, found: Residency, reason: EvictionReason) -> Adapter | None:
        """Forgets the cache's own reference and returns it: whoever drops that, frees the buffer."""
        adapter, found.resident = found.resident, None
        if adapter is not None:
            self._tally.count_eviction(reason, 0 if found.uses else found.nbytes)
            self._revision += 1
        if found.holds.count == 0:
            del self._residencies[found.file.key]
        return adapter
