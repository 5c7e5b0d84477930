"""Warmer: carries out the plan. Knows what is being read, what is warm, what failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from ..loaders.rate_limit import RateLimit
from ..lora.file import AdapterKey
from .machine import Machine
from .metrics import PageTally
from .plan import Fetch, FetchKey, Plan, Warm
from .pool import Pool
from .reading import Outcome, Reading

if TYPE_CHECKING:
    from ..lora.cache import AdapterCache

MAX_FAILURES = 4096


class Warmer:
    """Owned by the event loop; `call_soon` brings the end of a reading back onto it."""

    def __init__(
        self,
        cache: AdapterCache,
        machine: Machine,
        pool: Pool,
        call_soon: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        self.tally = PageTally()
        self.limiter: RateLimit | None = None
        self.concurrency = 1
        self.failed: dict[AdapterKey, str] = {}
        self._cache = cache
        self._machine = machine
        self._pool = pool
        self._call_soon = call_soon
        self._changed = changed
        self._running: Container[AdapterKey] = frozenset()
        self._pages: dict[AdapterKey, bool] = {}
        self._no_room: set[AdapterKey] = set()
        self._waiting: deque[Fetch] = deque()
        self._readings: dict[FetchKey, tuple[Reading, Future[Outcome]]] = {}

    @property
    def pages(self) -> Mapping[AdapterKey, bool]:
        """Files whose pages are warm -> whether the page cache can be asked if they still are."""
        return self._pages

    @property
    def no_room(self) -> Container[AdapterKey]:
        """Adapters that the cache has refused for now."""
        return self._no_room

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Reads going on for somebody; those told to stop are left out."""
        return tuple(reading for reading, _ in self._readings.values() if not reading.is_cancelled)

    @property
    def futures(self) -> tuple[Future[Outcome], ...]:
        """Every read that has not ended, told to stop or not."""
        return tuple(future for _, future in self._readings.values())

    def warm(self, resident: Container[AdapterKey]) -> Warm:
        """The plan's view of what need not be fetched."""
        return Warm(resident, self._pages, self.failed, self._no_room)

    def is_loading(self, key: FetchKey) -> bool:
        found = self._readings.get(key)
        return found is not None and not found[0].is_cancelled

    def retry_refused(self) -> None:
        """The queue has moved: what the cache had no room for may fit now."""
        self._no_room.clear()

    def follow(self, plan: Plan, running: Container[AdapterKey]) -> None:
        """Stops reads that nobody wants any more and starts those that come first. `running`: files of running jobs."""
        self._running = running
        for key, (reading, _) in self._readings.items():
            if key not in plan.wanted:
                reading.cancel()
        needed = {key.key for key in plan.wanted}
        self._pages = {key: asks for key, asks in self._pages.items() if key in needed}
        self.tally.write_off(needed)
        self._waiting = deque(plan.fetches)
        self._start()

    def stop(self) -> None:
        """Cancels everything."""
        self._waiting.clear()
        for reading, _ in self._readings.values():
            reading.cancel()

    def forget_pages(self, keys: Container[AdapterKey]) -> None:
        """The kernel has taken these back."""
        self._pages = {key: asks for key, asks in self._pages.items() if key not in keys}

    def _start(self) -> None:
        while self._waiting and len(self._readings) < self.concurrency:
            fetch = self._waiting.popleft()
            if fetch.key in self._readings:
                continue
            reading = Reading(fetch, lambda: self.limiter)
            future = self._pool.submit(partial(reading.run, self._cache, self._machine))
            self._readings[fetch.key] = reading, future
            future.add_done_callback(partial(self._landed, reading))

    def _landed(self, reading: Reading, future: Future[Outcome]) -> None:
        """In the thread that has read."""
        self._call_soon(partial(self._ended, reading, future))

    def _ended(self, reading: Reading, future: Future[Outcome]) -> None:
        fetch = reading.fetch
        del self._readings[fetch.key]
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            outcome = Outcome("cancelled")
        else:
            outcome = future.result() if error is None else Outcome("failed", problem=type(error).__name__)
        self._record(fetch, outcome)
        self._start()
        self._changed()

    def _record(self, fetch: Fetch, outcome: Outcome) -> None:
        key = fetch.file.key
        if fetch.tier == "page" and outcome.read_bytes:
            self.tally.count_warmed(key, outcome.read_bytes, claimed=key in self._running)
        if outcome.state == "failed":
            if len(self.failed) >= MAX_FAILURES:
                del self.failed[next(iter(self.failed))]
            self.failed[key] = outcome.problem
        elif outcome.state == "no_room":
            self._no_room.add(key)
        elif fetch.tier == "page" and outcome.state in ("ready", "already"):
            self._pages[key] = outcome.keeps_pages
