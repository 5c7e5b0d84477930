"""Warmer: carries out the plan. Knows what is being read, what is warm, what failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from ..loaders.rate_limit import RateLimit
from ..lora.file import AdapterKey
from .machine import Machine
from .metrics import PageTally
from .need import JobNeeds
from .pace import PaceMeter
from .plan import Fetch, FetchKey, Limits, Plan, Warm
from .pool import Pool
from .reading import Outcome, Reading
from .view import Shelves

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
        changed: Callable[[bool], None],
    ) -> None:
        """`changed(replan)` is called on the loop whenever a reading has ended; True when the plan no longer fits."""
        self.tally = PageTally()
        self.meter = PaceMeter()
        self.limiter: RateLimit | None = None
        self.concurrency = 1
        self.resident: frozenset[AdapterKey] = frozenset()
        """Adapters in the cache at the last look, and those brought there since."""
        self._cache = cache
        self._machine = machine
        self._pool = pool
        self._call_soon = call_soon
        self._changed = changed
        self._plan = Plan()
        self._running: Container[AdapterKey] = frozenset()
        # Replaced and never changed, so that a picture of the state can keep them.
        self._pages: Mapping[AdapterKey, bool] = {}
        self._failed: Mapping[AdapterKey, str] = {}
        self._no_room: frozenset[AdapterKey] = frozenset()
        self._waiting: deque[Fetch] = deque()
        self._readings: dict[FetchKey, tuple[Reading, Future[Outcome]]] = {}

    @property
    def pages(self) -> Mapping[AdapterKey, bool]:
        """Files whose pages are warm -> whether the page cache can be asked if they still are."""
        return self._pages

    @property
    def failed(self) -> Mapping[AdapterKey, str]:
        """Files that could not be read -> why; a changed file has another key."""
        return self._failed

    @property
    def no_room(self) -> frozenset[AdapterKey]:
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

    def warm(self) -> Warm:
        """The plan's view of what need not be fetched."""
        return Warm(self.resident, self._pages, self._failed, self._no_room)

    def shelves(self, limits: Limits) -> Shelves:
        """Without what the cache knows better, and without the page budget, which moves with every look at memory."""
        return Shelves(
            limits=replace(limits, page_bytes=limits.page_bytes and 1),
            pages=self._pages,
            loading=frozenset(reading.fetch.key for reading in self.readings),
            no_room=self._no_room,
            failed=self._failed,
        )

    def retry_refused(self) -> None:
        """The queue has moved: what the cache had no room for may fit now."""
        self._no_room = frozenset()

    def claim(self, running: Container[AdapterKey]) -> None:
        """What running jobs read: warming it is not in vain any more."""
        self._running = running

    def follow(self, plan: Plan, due: Sequence[Fetch]) -> None:
        """Stops reads that nobody wants any more and starts those of `due` that come first."""
        self._plan = plan
        for key, (reading, _) in self._readings.items():
            if not plan.wants(key):
                reading.cancel()
        if not self._pages.keys() <= plan.pages:
            self._pages = {key: asks for key, asks in self._pages.items() if key in plan.pages}
        self.tally.write_off(plan.pages)
        self._waiting = deque(due)
        self._start()

    def stop_unneeded(self, jobs: Sequence[JobNeeds]) -> None:
        """Stops reads for jobs that have gone, without the cost of a plan."""
        for key, (reading, _) in self._readings.items():
            if not any(key.key in job.keys for job in jobs):
                reading.cancel()

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
        self._changed(outcome.state == "no_room" or (outcome.state == "cancelled" and self._plan.wants(fetch.key)))

    def _record(self, fetch: Fetch, outcome: Outcome) -> None:
        key = fetch.file.key
        if fetch.tier == "page" and outcome.read_bytes:
            self.tally.count_warmed(key, outcome.read_bytes, outcome.seconds, claimed=key in self._running)
            # A later load finds the pages warm: only this read tells what a cold one costs, unless it was held back.
            if outcome.state == "ready" and self.limiter is None:
                self._cache.record_cold_read(key, outcome.seconds)
        if outcome.state == "ready":
            self.meter.count_read(outcome.read_bytes, outcome.seconds)
        if outcome.state == "failed":
            self._failed = {**dict(islice(self._failed.items(), MAX_FAILURES)), key: outcome.problem}
        elif outcome.state == "no_room":
            self._no_room |= {key}
        elif fetch.tier == "resident" and outcome.state in ("ready", "already"):
            self.resident |= {key}
        elif fetch.tier == "page" and outcome.state in ("ready", "already") and key in self._plan.pages:
            self._pages = {**self._pages, key: outcome.keeps_pages}
