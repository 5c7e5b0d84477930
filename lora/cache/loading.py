"""How the cache reads a file, and how long a demand would have waited for that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from ...loaders.cancelling import Cancelled
from ...loaders.reading.tensor_file import Storage
from ...loaders.system.rate_limit import RateLimit
from ..library.file import LoraFile
from .adapter import Adapter
from .flight import BackgroundLimit, Flight

PrefetchOutcome = Literal["ready", "already", "no_room", "failed", "unavailable", "cancelled"]


class LoadAdapter(Protocol):
    """`load_adapter`, or that with another default limiter (a slow disk, say)."""

    def __call__(
        self, file: LoraFile, *, cancelled: Cancelled, storage: Storage, limiter: RateLimit | None = ...
    ) -> Adapter: ...


def timed_load(
    load: LoadAdapter, flight: Flight, storage: Storage, limiter: RateLimit | None, clock: Callable[[], float]
) -> tuple[Adapter, float]:
    """The adapter, and the seconds that reading it took. Those for which `limiter` held it back do not count."""
    started_s, waited_s = clock(), 0.0
    if limiter is None:
        adapter = load(flight.file, cancelled=flight.cancelled, storage=storage)
    else:
        background = BackgroundLimit(limiter, flight, clock)
        adapter = load(flight.file, cancelled=flight.cancelled, storage=storage, limiter=background)
        waited_s = background.waited_s
    return adapter, clock() - started_s - waited_s
