"""Flight: one load in progress and everybody who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ...loaders.cancelling import Cancelled, never
from ...loaders.system.rate_limit import RateLimit
from ..errors import AdapterLoadError
from ..library.file import LoraFile
from .residency import Held

_POLL_S = 0.02
"""How late a waiter may notice its own cancellation: `cancelled` is a flag of the host that nobody can wait on."""


class Flight:
    """One load of one file. `board`, `leave`, `land` and `claim` are called under the lock of the cache.

    It lands with an adapter, with an `error`, or with neither: then it was abandoned, and a waiter that still
    wants the adapter starts a flight of its own.
    """

    def __init__(self, file: LoraFile) -> None:
        self.file = file
        self.demands = 0
        """Passengers who will use the adapter as soon as it is there."""
        self.read_s = 0.0
        """What its read took, as far as it has come."""
        self._held: Held | None = None
        self.error: AdapterLoadError | None = None
        self._passengers: list[Cancelled] = []
        self._landed = threading.Event()

    @property
    def landed(self) -> bool:
        return self._landed.is_set()

    def board(self, cancelled: Cancelled, *, demand: bool) -> None:
        self._passengers.append(cancelled)
        self.demands += demand

    def leave(self, cancelled: Cancelled) -> None:
        """A demand gives up; the flight goes on for the others."""
        self._passengers.remove(cancelled)
        self.demands -= 1

    def cancelled(self) -> bool:
        """True when nobody on board wants it any more: a demand that joined a prefetch keeps it going."""
        return all(cancelled() for cancelled in tuple(self._passengers))

    def land(self, held: Held | None, error: AdapterLoadError | None) -> None:
        """The one who took off keeps `held`; every other passenger claims it or leaves."""
        self._passengers.pop()
        self._held, self.error = (held if self._passengers else None), error
        self._landed.set()

    def claim(self) -> Held | None:
        """What a landed flight has brought. The last one empties it: the traceback of a demand that gave up keeps the
        flight, and must not keep the adapter."""
        self._passengers.pop()
        held = self._held
        if not self._passengers:
            self._held = None
        return held

    def wait(self, cancelled: Cancelled) -> bool:
        """Blocks until the flight has landed; False when `cancelled` turned true first."""
        if cancelled is never:
            return self._landed.wait()
        while not self._landed.wait(_POLL_S):
            if cancelled():
                return False
        return True


class BackgroundLimit(RateLimit):
    """The rate limit of a prefetch, lifted as soon as somebody waits for its flight."""

    def __init__(self, limiter: RateLimit, flight: Flight, clock: Callable[[], float]) -> None:
        super().__init__(limiter.bytes_per_s)
        self.waited_s = 0.0
        """Seconds that the read was held back: a demand would not have been."""
        self._limiter = limiter
        self._flight = flight
        self._now_s = clock

    def spend(self, nbytes: int, cancelled: Cancelled | None = None) -> None:
        cancelled = cancelled or never
        started_s = self._now_s()
        self._limiter.spend(nbytes, lambda: self._flight.demands > 0 or cancelled())
        self.waited_s += self._now_s() - started_s
