"""ModelTier: keeps the models of the next jobs in the page cache, whenever no LoRA of their disk is being read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from itertools import takewhile

from ...lora.library.file import AdapterKey
from ..machine import Machine
from ..pool import Pool
from ..queue.job import JobKey
from ..queue.need import JobNeeds
from ..reading.page_tally import PageTally
from ..reading.reading import Outcome
from ..reading.schedule import Line
from ..reading.unreadable import Unreadable
from ..reading.warmer import Warmer
from ..settings import PrefetchSettings
from ..status import FetchStatus
from .board import ModelBoard
from .file import ModelFile, ModelFinder
from .plan import JobModels, ModelFetch, ModelPlan, Needed, Room, needed_models, plan_models
from .reading import ModelReading
from .view import ModelSnapshot

MODEL_THREADS = 8
"""Reads of models that have not ended, with those that hang and were told to stop."""
_LEFT_BEHIND = 2
"""So many of these in one line, and another read may begin there."""


class ModelTier:
    """Owned by the event loop. On each disk one reader, which waits while the LoRAs' warmer reads there."""

    def __init__(
        self,
        find: ModelFinder | None,
        warmer: Warmer,
        machine: Machine,
        pool: Pool,
        offload: Callable[[Callable[[], None]], Awaitable[None]],
        call_soon: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        """`call_soon` brings a call from a thread onto the loop; `changed()` is called there when a plan is out of
        date. Without `find`, there are no models."""
        self._board = ModelBoard(find or _none, offload, machine.clock, warmer.disk_of)
        self._is_able = find is not None
        self._warmer = warmer
        self._machine = machine
        self._pool = pool
        self._call_soon = call_soon
        self._changed = changed
        self._tally = PageTally()
        self._seen_jobs: tuple[JobModels, ...] = ()
        self._seen_held: frozenset[AdapterKey] = frozenset()
        self._needed = Needed()
        self._plan = ModelPlan()
        self._due: Mapping[Line, tuple[ModelFetch, ...]] = {}
        self._held: frozenset[AdapterKey] = frozenset()
        """Models of the job that started last: the host has them."""
        self._uncounted: set[JobKey] = set()
        """Jobs that started before all their models were looked up."""
        self._unreadable = Unreadable()
        # Replaced and never changed, so that a snapshot can keep them.
        self._pages: Mapping[AdapterKey, bool] = {}
        self._under_way: dict[ModelReading, Future[Outcome]] = {}

    @property
    def futures(self) -> tuple[Future[Outcome], ...]:
        """Of reads that have not ended, told to stop or not."""
        return tuple(self._under_way.values())

    @property
    def under_way(self) -> tuple[ModelReading, ...]:
        """These reads."""
        return tuple(self._under_way)

    @property
    def readings(self) -> tuple[ModelReading, ...]:
        """Reads going on or paused; those told to stop are left out: one may hang for ever."""
        return tuple(reading for reading in self._under_way if not reading.is_cancelled)

    @property
    def retry_at_s(self) -> float:
        """When a plan may read again what was not to blame for a failed read."""
        return self._unreadable.retry_at_s

    def observe(self, needs: tuple[JobNeeds, ...]) -> bool:
        """Takes in the queue; True when there is something to `look_up`."""
        return self._board.observe(needs if self._is_able else ())

    async def look_up(self) -> None:
        """Finds the files of new names, in a thread."""
        await self._board.look_up(self._on_found)

    def _on_found(self) -> None:
        uncounted, self._uncounted = self._uncounted, set()
        for key in uncounted:
            self.count_start(key)
        self._changed()

    def count_start(self, started: JobKey) -> None:
        """A job has started: what it needs beyond the models of the job before was there in time, or was not."""
        job = self._board.job(started)
        if job is None:
            return
        if not job.is_whole:
            self._uncounted.add(started)
            return
        loading = [reading.fetch.file.key for reading in self._under_way]
        keys = frozenset(file.key for file in job.files)
        for key in keys - self._held:
            self._tally.count_demand(key, self._pages, loading)
        # A job without models leaves the host those of the job before it.
        if keys and keys != self._held:
            self._held = keys

    @property
    def read_by_job(self) -> tuple[str, ...]:
        """Paths of the running job's models."""
        running = takewhile(lambda job: job.running, self._board.jobs)
        return tuple(file.path for job in running for file in job.files)

    def plan(self, room: Callable[[], Room], settings: PrefetchSettings, now_s: float) -> float | None:
        """Decides anew what to read; the seconds until more is due, None when nothing is left."""
        self._look_ahead()
        self._unreadable.retry(now_s)
        if not self._needed.fetches:
            self._plan, self._due = ModelPlan(), {}
            return None
        failed = self._unreadable.problems
        self._plan = plan_models(self._needed, room(), warm=self._pages, failed=failed, depth_jobs=settings.depth_jobs)
        self._warmer.locate(fetch.file.path for fetch in self._plan.fetches)
        due, wait_s = self._plan.fetches, None
        if due and settings.just_in_time:
            reads = [(fetch.file.size_bytes, fetch.position) for fetch in due]
            count, wait_s = self._warmer.meter.timetable(now_s).due_count(reads)
            due = due[:count]
        lines: dict[Line, list[ModelFetch]] = {}
        for fetch in due:
            lines.setdefault(self._warmer.line_of(fetch.file.path), []).append(fetch)
        self._due = {line: tuple(fetches) for line, fetches in lines.items()}
        return wait_s

    def proceed(self) -> None:
        """On each disk, starts the next read, or holds up the one going on: LoRAs come first, and so does what the
        running job reads from there."""
        taken: Counter[Line] = Counter()
        for reading in self._under_way:
            self._steer(reading)
            line = self._warmer.line_of(reading.path)
            taken[line] += 1 if reading.is_cancelled else 1 + _LEFT_BEHIND
        for line in self._due:
            if taken[line] <= _LEFT_BEHIND and len(self._under_way) < MODEL_THREADS:
                fetch = next(self._cold(line), None)
                if fetch is not None and not self._must_wait(fetch):
                    self._start(ModelReading(fetch, lambda: self._warmer.limiter, self._machine.clock))

    def stop(self) -> None:
        """Cancels everything."""
        self._due = {}
        for reading in self._under_way:
            reading.cancel()

    def warm_keys(self, jobs: int) -> set[AdapterKey]:
        """Files of the first `jobs` whose pages are warm and can be asked for again."""
        named = (file.key for job in self._board.jobs[:jobs] for file in job.files)
        return {key for key in named if self._pages.get(key)}

    def forget_pages(self, keys: Container[AdapterKey]) -> None:
        """The kernel has taken these back."""
        self._pages = {key: asks for key, asks in self._pages.items() if key not in keys}

    def snapshot(self) -> ModelSnapshot:
        """The state at this moment."""
        readings = self.readings
        return ModelSnapshot(
            jobs=self._board.jobs,
            pages=self._pages,
            failed=self._unreadable.problems,
            loading=frozenset(reading.fetch.file.key for reading in readings),
            in_flight=tuple(map(_fetch_status, readings)),
            page=self._tally.figures,
        )

    def _look_ahead(self) -> None:
        """Most plans are made for the same jobs: only what has changed costs."""
        jobs = self._board.jobs
        if jobs is self._seen_jobs and self._held is self._seen_held:
            return
        self._seen_jobs, self._seen_held = jobs, self._held
        self._needed = needed_models(jobs, self._held)
        if self._pages or self._tally.unclaimed:
            named = {file.key for job in jobs for file in job.files}
            self._pages = {key: asks for key, asks in self._pages.items() if key in named}
            self._tally.write_off(named)

    def _steer(self, reading: ModelReading) -> None:
        if reading.fetch.file.key not in self._plan.wanted:
            reading.cancel()
        elif self._must_wait(reading.fetch):
            reading.pause()
        else:
            reading.resume()

    def _must_wait(self, fetch: ModelFetch) -> bool:
        return self._warmer.is_reading(fetch.file.path) or self._warmer.keeps_off(fetch.file.path)

    def _cold(self, line: Line) -> Iterator[ModelFetch]:
        """What may be read there, in the order of need. A read that hangs is not begun a second time."""
        under_way = {reading.fetch.file.key for reading in self._under_way}
        for fetch in self._due[line]:
            key = fetch.file.key
            if not (key in self._pages or key in self._unreadable.problems or key in under_way):
                yield fetch

    def _start(self, reading: ModelReading) -> None:
        future = self._under_way[reading] = self._pool.submit(partial(reading.run, self._machine))
        future.add_done_callback(partial(self._landed, reading))

    def _landed(self, reading: ModelReading, future: Future[Outcome]) -> None:
        """In the thread that has read."""
        self._call_soon(partial(self._ended, reading, future))

    def _ended(self, reading: ModelReading, future: Future[Outcome]) -> None:
        del self._under_way[reading]
        key = reading.fetch.file.key
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            outcome = Outcome("cancelled")
        else:
            outcome = future.result() if error is None else Outcome("failed", problem=type(error).__name__)
        if self._unreadable.counts(key, outcome):
            self._tally.count_warmed(key, outcome.read_bytes, outcome.seconds, claimed=key in self._held)
        if outcome.state == "ready":
            self._warmer.meter.count_read(outcome.read_bytes, outcome.seconds, key.path)
        self._unreadable.note(key, outcome, self._machine.clock())
        if outcome.state in ("ready", "already"):
            self._pages = {**self._pages, key: outcome.keeps_pages}
        self._changed()


def _none(_kind: str, _name: str) -> tuple[ModelFile, ...]:
    return ()


def _fetch_status(reading: ModelReading) -> FetchStatus:
    file = reading.fetch.file
    return FetchStatus(file.name, "model", min(reading.gate.done_bytes, file.size_bytes), file.size_bytes)
