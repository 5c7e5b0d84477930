"""ModelTier: keeps the model files of the next jobs in the page cache, whenever no LoRA is being read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from concurrent.futures import Future
from functools import partial
from itertools import takewhile

from ...lora.file import AdapterKey
from ..machine import Machine
from ..pool import Pool
from ..queue.job import JobKey
from ..queue.need import JobNeeds
from ..reading.reading import Outcome
from ..reading.unreadable import Unreadable
from ..reading.warmer import Warmer
from ..reports.metrics import PageTally
from ..reports.status import FetchStatus
from ..settings import PrefetchSettings
from .board import Found, ModelBoard
from .file import ModelFile, ModelFinder
from .plan import JobModels, ModelFetch, ModelPlan, Needed, Room, needed_models, plan_models
from .reading import ModelReading
from .view import ModelPicture


class ModelTier:
    """Owned by the event loop. One reader, which waits while the LoRAs' warmer reads."""

    def __init__(
        self,
        find: ModelFinder | None,
        warmer: Warmer,
        machine: Machine,
        pool: Pool,
        offload: Callable[[Callable[[], Found]], Awaitable[Found]],
        call_soon: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        """`call_soon` brings a call from a thread onto the loop; `changed()` is called there when a plan is out of
        date. Without `find`, there are no models."""
        self._board = ModelBoard(find or _none, offload, machine.clock)
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
        self._due: tuple[ModelFetch, ...] = ()
        self._held: frozenset[AdapterKey] = frozenset()
        """Models of the job that started last: the host has them."""
        self._uncounted: set[JobKey] = set()
        """Jobs that started before their models were looked up."""
        self._unreadable = Unreadable()
        # Replaced and never changed, so that a picture of the state can keep them.
        self._pages: Mapping[AdapterKey, bool] = {}
        self._reading: ModelReading | None = None
        self._future: Future[Outcome] | None = None

    @property
    def futures(self) -> tuple[Future[Outcome], ...]:
        """The read that has not ended, told to stop or not."""
        return () if self._future is None else (self._future,)

    @property
    def retry_at_s(self) -> float:
        """When a plan may read again what was not to blame for a failed read."""
        return self._unreadable.retry_at_s

    def observe(self, needs: tuple[JobNeeds, ...]) -> bool:
        """Takes in the queue; True when there is something to `look_up`."""
        return self._board.observe(needs if self._is_able else ())

    async def look_up(self) -> None:
        """Finds the files of new names, in a thread."""
        before = self._board.jobs
        await self._board.look_up()
        uncounted, self._uncounted = self._uncounted, set()
        for key in uncounted:
            self.count_start(key)
        if self._board.jobs != before:
            self._changed()

    def count_start(self, started: JobKey) -> None:
        """A job has started: what it needs beyond the models of the job before was there in time, or was not."""
        job = self._board.job(started)
        if job is None:
            return
        if job.files is None:
            self._uncounted.add(started)
            return
        loading = () if self._reading is None else (self._reading.fetch.file.key,)
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
        return tuple(file.path for job in running for file in job.files or ())

    def plan(self, room: Callable[[], Room], settings: PrefetchSettings, now_s: float) -> float | None:
        """Decides anew what to read; the seconds until more is due, None when nothing is left."""
        self._look_ahead()
        self._unreadable.retry(now_s)
        if not self._needed.fetches:
            self._plan, self._due = ModelPlan(), ()
            return None
        failed = self._unreadable.problems
        self._plan = plan_models(self._needed, room(), warm=self._pages, failed=failed, depth_jobs=settings.depth_jobs)
        self._warmer.locate(fetch.file.path for fetch in self._plan.fetches)
        self._due, wait_s = self._plan.fetches, None
        if self._due and settings.just_in_time:
            reads = [(fetch.file.size_bytes, fetch.position) for fetch in self._due]
            count, wait_s = self._warmer.meter.pace(now_s).due_count(reads)
            self._due = self._due[:count]
        return wait_s

    def proceed(self) -> None:
        """Starts the next read, or holds up the one going on: LoRAs come first, and so does what the running job reads
        from the same disk."""
        reading = self._reading
        if reading is not None:
            must_wait = self._must_wait(reading.fetch)
            if reading.fetch.file.key not in self._plan.wanted or (must_wait and not reading.has_begun):
                reading.cancel()
            elif must_wait:
                reading.pause()
            else:
                reading.resume()
        else:
            fetch = next((fetch for fetch in self._due if self._is_cold(fetch.file.key)), None)
            if fetch is not None and not self._must_wait(fetch):
                self._start(ModelReading(fetch, lambda: self._warmer.limiter, self._machine.clock))

    def stop(self) -> None:
        """Cancels everything."""
        self._due = ()
        if self._reading is not None:
            self._reading.cancel()

    def warm_keys(self, jobs: int) -> set[AdapterKey]:
        """Files of the first `jobs` whose pages are warm and can be asked for again."""
        named = (file.key for job in self._board.jobs[:jobs] for file in job.files or ())
        return {key for key in named if self._pages.get(key)}

    def forget_pages(self, keys: Container[AdapterKey]) -> None:
        """The kernel has taken these back."""
        self._pages = {key: asks for key, asks in self._pages.items() if key not in keys}

    def picture(self) -> ModelPicture:
        """The state at this moment."""
        reading = self._reading
        if reading is not None and reading.is_cancelled:
            reading = None
        return ModelPicture(
            jobs=self._board.jobs,
            pages=self._pages,
            failed=self._unreadable.problems,
            loading=None if reading is None else reading.fetch.file.key,
            in_flight=() if reading is None else (_fetch_status(reading),),
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
            named = {file.key for job in jobs for file in job.files or ()}
            self._pages = {key: asks for key, asks in self._pages.items() if key in named}
            self._tally.write_off(named)

    def _must_wait(self, fetch: ModelFetch) -> bool:
        return self._warmer.is_reading or self._warmer.keeps_off(fetch.file.key.path)

    def _is_cold(self, key: AdapterKey) -> bool:
        return key not in self._pages and key not in self._unreadable.problems

    def _start(self, reading: ModelReading) -> None:
        self._reading = reading
        self._future = self._pool.submit(partial(reading.run, self._machine))
        self._future.add_done_callback(partial(self._landed, reading.fetch))

    def _landed(self, fetch: ModelFetch, future: Future[Outcome]) -> None:
        """In the thread that has read."""
        self._call_soon(partial(self._ended, fetch, future))

    def _ended(self, fetch: ModelFetch, future: Future[Outcome]) -> None:
        self._reading = self._future = None
        key = fetch.file.key
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
