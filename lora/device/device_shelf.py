"""DeviceShelf: adapters on one device under a byte budget, sent there before they are asked for."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import torch

from ...loaders.cancelling import Cancelled, never
from ...loaders.errors import LoadCancelledError, SafetensorsLoadError
from ...loaders.reading.flat_views import TensorSpec
from ...loaders.transfer import DeviceTransfer
from ...loaders.upload.upload_source import MemorySource
from ..cache.adapter import Adapter
from ..cache.budget import ByteBudget, Reservation
from ..cache.lease import AcquireOutcome
from ..cache.policies import Candidate, EvictionPolicy, NextUse
from ..cache.victims import choose_victims, victims_that_free, yields_to_prefetch
from ..library.file import AdapterKey
from .device_adapter import DeviceAdapter, Use
from .shelf_place import ShelfFlight, ShelfPlace, specs_of
from .shelf_stats import ShelfEviction, ShelfSnapshot, ShelfTally, ShelfView

ShelfOutcome = Literal["ready", "already", "no_room", "unfit", "failed", "cancelled"]
"""`unfit`: it has no one block of host memory that could be sent as it is."""

RETRY_S = 30.0
"""After the device had no memory. Asking makes its allocator give back what it keeps, which stops the running job."""


class DeviceShelf:
    """Thread-safe. `prefetch`, and `acquire` after a miss, block until every copy is queued. The lock is never held
    meanwhile.

    A buffer is given back, and its bytes to the budget, when the shelf has dropped it, its uses have ended and every
    stream is through with them. Without memory on the device nothing is kept there, which
    `snapshot().problem` tells."""

    def __init__(
        self, transfer: DeviceTransfer, budget: ByteBudget, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The shelf owns `transfer` from now on."""
        self._transfer = transfer
        self._budget = budget
        self._policy: EvictionPolicy = NextUse()
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[AdapterKey, ShelfPlace] = {}
        self._flights: dict[AdapterKey, ShelfFlight] = {}
        self._leaving: list[ShelfPlace] = []
        self._ended: deque[Use] = deque()
        self._next_use: dict[AdapterKey, int] = {}
        self._tally = ShelfTally()
        self._problem = ""
        self._retry_at_s = float("-inf")
        self._revision = 0
        self._closed = False

    @property
    def device(self) -> torch.device:
        return self._transfer.device

    @property
    def limit_bytes(self) -> int:
        return self._budget.limit_bytes

    def prefetch(self, adapter: Adapter, next_use: int | None, *, cancelled: Cancelled = never) -> ShelfOutcome:
        """Sends `adapter`, which the job at queue position `next_use` will ask for (None: nobody yet), if there is room
        beside what is needed sooner. Returns when its last copy is queued.

        "already": it is there, or on its way. `cancelled` counts no longer once a demand waits for it."""
        specs = specs_of(adapter)
        if not specs:
            return "unfit"
        with self._lock:
            self._settle()
            if self._closed:
                return "cancelled"
            if adapter.key in self._places or adapter.key in self._flights:
                return "already"
            flight = self._flights[adapter.key] = ShelfFlight(next_use)
        try:
            return "no_room" if self._fly(adapter, specs, flight, cancelled) is None else "ready"
        except LoadCancelledError:
            return "cancelled"
        except SafetensorsLoadError as error:
            self._complain(error.reason)
            return "failed"

    def wait_for_prefetch(self, key: AdapterKey) -> DeviceAdapter | None:
        """The adapter for the caller's current stream, which waits for its copies; the thread is blocked only while
        they are not all queued. None when it is neither there nor on its way: a miss."""
        started_s = self._clock()
        with self._lock:
            self._settle()
            place, flight = self._places.get(key), self._flights.get(key)
            if place is not None:
                place.holds.count += 1
            elif flight is not None:
                flight.demands += 1
        outcome: AcquireOutcome = "join"
        if place is not None:
            outcome = "hit" if place.upload.done else "join"
        elif flight is not None:
            place = self._ride(flight)
        if place is None:
            self._count("miss", started_s)
            return None
        return self._handed_out(place, outcome, started_s)

    def acquire(self, adapter: Adapter) -> DeviceAdapter | None:
        """`wait_for_prefetch`, and after a miss the adapter is sent now, in place of what nobody is using. None when
        there is no room even so, and when what is there was laid out otherwise: use it where it is."""
        specs = specs_of(adapter)
        if not specs:
            return None
        found = self.wait_for_prefetch(adapter.key)
        if found is not None:
            return found if found.mirrors(specs) else None
        started_s = self._clock()
        with self._lock:
            if self._closed:
                return None
            somebody_else = adapter.key in self._flights or adapter.key in self._places
            flight = ShelfFlight(None, demands=1)
            if not somebody_else:
                self._flights[adapter.key] = flight
        if somebody_else:
            return self.wait_for_prefetch(adapter.key)
        try:
            place = self._fly(adapter, specs, flight, never)
        except SafetensorsLoadError as error:
            self._complain(error.reason)
            place = None
        with self._lock:
            self._tally.wait_s += self._clock() - started_s
        return None if place is None else self._handed_out(place, "miss", None)

    def plan_uses(self, next_use: Mapping[AdapterKey, int]) -> None:
        """Replaces what is known of the queue: key -> position of the next job that uses it, running job first."""
        with self._lock:
            self._next_use = dict(next_use)
            self._revision += 1

    def holds(self, key: AdapterKey) -> bool:
        """Whether the adapter is there, or on its way."""
        return key in self._places or key in self._flights

    def evict(self, key: AdapterKey) -> bool:
        """Drops one adapter; False when it is not here, or in use."""
        with self._lock:
            self._settle()
            place = self._places.get(key)
            if place is None or place.holds.count:
                return False
            self._drop(place, "request")
        return True

    def clear(self) -> None:
        """Lets go of everything; what is in use stays as long as its uses, and its bytes stay reserved that long."""
        with self._lock:
            self._settle()
            self._retry_at_s = float("-inf")
            for place in list(self._places.values()):
                self._drop(place, "clear")
            self._leave()

    def resize(self, limit_bytes: int) -> None:
        """Sets the budget's limit and drops what is over it, now or as soon as it is not in use any more."""
        self._budget.resize(limit_bytes)
        self._retry_at_s = float("-inf")
        with self._lock:
            self._settle()

    def close(self) -> None:
        """Stops what is being sent, lets go of everything and takes nothing more. Returns when every stream is through
        with what it was handed; who still has a use keeps the shelf as long."""
        self._closed = True
        self.clear()
        with self._lock:
            leaving = tuple(self._leaving)
        for place in leaving:
            place.wait()
        self.clear()
        self._transfer.release()

    def snapshot(self) -> ShelfSnapshot:
        with self._lock:
            self._settle()
            views = [self._view(place) for place in self._places.values()]
            sending = [
                ShelfView(key, flight.nbytes, "sending", flight.demands, self._next_use.get(key))
                for key, flight in self._flights.items()
            ]
            return ShelfSnapshot(
                revision=self._revision,
                device=str(self._transfer.device),
                limit_bytes=self._budget.limit_bytes,
                used_bytes=self._budget.used_bytes,
                peak_bytes=self._budget.peak_bytes,
                pinned_bytes=self._transfer.pinned_bytes,
                adapters=(*views, *sending),
                stats=self._tally.stats(),
                problem=self._problem,
            )

    def _fly(
        self, adapter: Adapter, specs: Mapping[str, TensorSpec], flight: ShelfFlight, cancelled: Cancelled
    ) -> ShelfPlace | None:
        """Blocks: sends the adapter and lands the flight, whatever happens. None when there was no room."""
        place: ShelfPlace | None = None
        try:
            assert adapter.buffer is not None, "specs tell where tensors stand in it"
            source = MemorySource(adapter.buffer, specs)
            flight.nbytes = source.nbytes
            reservation = self._make_room(flight)
            if reservation is not None:
                place = self._send(adapter.key, source, flight, reservation, cancelled)
        finally:
            self._land(adapter.key, flight, place)
        return place

    def _send(
        self, key: AdapterKey, source: MemorySource, flight: ShelfFlight, reservation: Reservation, cancelled: Cancelled
    ) -> ShelfPlace | None:
        def is_unwanted() -> bool:
            return self._closed or (not flight.demands and cancelled())

        try:
            upload = self._transfer.send(os.path.basename(key.path), source, cancelled=is_unwanted)
        except MemoryError:
            reservation.release()
            self._complain("the host has no memory for the slots")
            return None
        except BaseException:
            reservation.release()
            raise
        self._complain(next(iter(upload.reasons[-1:]), ""))
        if upload.buffer is None:
            self._retry_at_s = self._clock() + RETRY_S
            reservation.release()
            return None
        # Views outlive uses where somebody keeps them, and the memory is theirs as long.
        reservation.release_with(upload.buffer.untyped_storage())
        return ShelfPlace(key, source.views(upload.buffer), upload, self._clock())

    def _land(self, key: AdapterKey, flight: ShelfFlight, place: ShelfPlace | None) -> None:
        with self._lock:
            del self._flights[key]
            self._revision += 1
            if place is not None:
                place.holds.count = flight.demands
                self._tally.uploaded_bytes += place.nbytes
                self._tally.prefetched_bytes += 0 if flight.demands else place.nbytes
                self._places[key] = place
                if flight.next_use is not None:
                    self._next_use.setdefault(key, flight.next_use)
                if self._closed:
                    self._drop(place, "clear")
            flight.place = place
        flight.landed.set()

    def _ride(self, flight: ShelfFlight) -> ShelfPlace | None:
        """Blocks until somebody else's flight has landed."""
        try:
            flight.landed.wait()
        except BaseException:
            with self._lock:
                flight.demands -= 1
                if flight.place is not None:
                    flight.place.holds.count -= 1
            raise
        return flight.place

    def _handed_out(self, place: ShelfPlace, outcome: AcquireOutcome, started_s: float | None) -> DeviceAdapter:
        """Turns a hold that was already counted into a use by the current stream."""
        try:
            fence = place.upload.order()
        except BaseException:
            with self._lock:
                place.holds.count -= 1
            raise
        assert fence is not None
        wait_s = 0.0 if started_s is None else self._count(outcome, started_s)
        place.last_used_s = self._clock()
        place.uses += 1
        return DeviceAdapter(place.key, place.views, outcome, wait_s, Use(place.holds, fence), self._ended)

    def _count(self, outcome: AcquireOutcome, started_s: float) -> float:
        with self._lock:
            wait_s = self._clock() - started_s
            self._tally.count(outcome, wait_s)
            self._revision += 1
            return wait_s

    def _complain(self, problem: str) -> None:
        with self._lock:
            self._revision += problem != self._problem
            self._problem = problem

    def _make_room(self, flight: ShelfFlight) -> Reservation | None:
        """Reserves the bytes, dropping what must yield. Takes the lock."""
        while self._clock() >= self._retry_at_s:
            reservation = self._budget.try_reserve(flight.nbytes)
            if reservation is not None:
                return reservation
            if flight.nbytes > self._budget.limit_bytes or not self._evict_for(flight):
                break
        return None

    def _evict_for(self, flight: ShelfFlight) -> bool:
        reason: ShelfEviction = "demand" if flight.demands else "prefetch"
        with self._lock:
            self._settle()
            short_bytes = self._budget.used_bytes + flight.nbytes - self._budget.limit_bytes
            free = [self._candidate(place) for place in self._places.values() if place.is_free]
            candidates = [one for one in free if reason == "demand" or yields_to_prefetch(one, flight.next_use)]
            victims = victims_that_free(candidates, short_bytes, self._policy)
            if victims is None:
                return False
            for victim in victims:
                self._drop(self._places[victim.key], reason)
            self._leave()
        return True

    # Below, everything runs under the lock.

    def _settle(self) -> None:
        """Takes in the uses that ended since the last operation, and gives back what nobody uses any more, and what is
        over the limit."""
        while self._ended:
            use = self._ended.popleft()
            use.count.take_in(use)
        self._leave()
        short_bytes = self._budget.used_bytes - self._budget.limit_bytes
        if short_bytes > 0:
            unused = [self._candidate(place) for place in self._places.values() if not place.holds.count]
            leaving_bytes = sum(place.nbytes for place in self._leaving)
            for victim in choose_victims(unused, short_bytes - leaving_bytes, self._policy):
                self._drop(self._places[victim.key], "resize")
            self._leave()

    def _drop(self, place: ShelfPlace, reason: ShelfEviction) -> None:
        del self._places[place.key]
        self._leaving.append(place)
        self._tally.evictions[reason] += 1
        self._tally.wasted_bytes += 0 if place.uses or place.holds.count else place.nbytes
        self._revision += 1

    def _leave(self) -> None:
        staying = [place for place in self._leaving if not place.is_free]
        self._revision += len(staying) != len(self._leaving)
        self._leaving = staying

    def _candidate(self, place: ShelfPlace) -> Candidate:
        return Candidate(
            key=place.key,
            nbytes=place.nbytes,
            next_use=self._next_use.get(place.key),
            # Every byte comes back over the same bus: beyond the queue, nothing but its last use tells two apart.
            age=0.0,
            cold_read_s=0.0,
            uses=place.uses,
            last_used_s=place.last_used_s,
        )

    def _view(self, place: ShelfPlace) -> ShelfView:
        state: Literal["ready", "arriving"] = "ready" if place.upload.done else "arriving"
        return ShelfView(place.key, place.nbytes, state, place.holds.count, self._next_use.get(place.key))
