"""Prefetcher: reads the queue ahead and keeps warm what its next jobs will load."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .alarm import Alarm
from .crew import Crew
from .device_warmer import DeviceWarmer
from .machine import Machine
from .memory_watch import MemoryWatch
from .models.file import ModelFinder
from .models.tier import MODEL_THREADS, ModelTier
from .page_watch import PageWatch
from .planning.horizon import Horizon
from .planning.lasting_forecast import LastingForecast
from .planning.plan import Limits, Plan, speculate
from .planning.timetable import Due
from .pool import join_all
from .queue.board import QueueBoard
from .queue.job import QueuedJob, References
from .queue.lookup import Lookup
from .queue.need import JobNeeds, need_of
from .queue.resolver import Resolver
from .queue.scan import LibraryScan
from .reading.schedule import THREADS
from .reading.warmer import Warmer
from .references.prompt import payload_references
from .reports.batch_line import BatchLog
from .reports.history import JobHistory, demands
from .reports.view import PrefetchSnapshot, fetch_status, planned_loras, resident_keys
from .settings import PrefetchSettings
from .status import PlannedLora, PrefetchStatus

if TYPE_CHECKING:
    from ..loaders.system.rate_limit import RateLimit
    from ..lora.cache.cache import AdapterCache
    from ..lora.device.device_shelf import DeviceShelf
    from ..lora.library.catalog import LoraCatalog
    from ..lora.library.file import AdapterKey

logger = logging.getLogger(__name__)

BUSY_POLL_S = 0.25
IDLE_POLL_S = 2.0
"""`wake` makes up for it: an idle queue changes through a submission."""
MEMORY_TICK_S = 3.0
JOIN_S = 0.5
PUBLISH_S = 0.05
"""How late a file that has just arrived may be shown."""
GRACE_S = 5.0
"""How long an end waits for reads to notice it; a read that is stuck in the kernel is left to its daemon thread."""


class Prefetcher:
    """`run` on an event loop until `close`. `wake`, `configure`, `status`, `plan_for` and `close` from any thread.

    Everything that blocks runs in daemon threads; what changes state runs on the loop, at most a few milliseconds at a
    time. A pickle is never read; a damaged file not again until it changes, one that was not to be had for a while.
    """

    def __init__(
        self,
        *,
        jobs: Callable[[], Sequence[QueuedJob]],
        catalog: LoraCatalog,
        cache: AdapterCache,
        references: Callable[[object], References] = payload_references,
        models: ModelFinder | None = None,
        settings: PrefetchSettings | None = None,
        machine: Machine | None = None,
        shelf: DeviceShelf | None = None,
        shelf_refusal: str = "",
        default_budget_bytes: int | None = None,
    ) -> None:
        """`jobs` gives the visible queue, running jobs first, then in running order, as it stays; called on the loop.
        Without `models`, those that jobs name are left alone; without `shelf`, `shelf_refusal` says why; without
        `default_budget_bytes`, a resident budget of None means the one that `cache` has now."""
        self._jobs = jobs
        self._references = references
        self._cache = cache
        self._settings = settings or PrefetchSettings()
        self._machine = machine or Machine()
        self._resolver = Resolver(catalog)
        crew = self._crew = Crew(self._machine.make_pool, THREADS + MODEL_THREADS)
        clock, self._woken = self._machine.clock, asyncio.Event()
        lookup = Lookup(self._resolver, lambda call: crew.begin(crew.offload(call)), clock, self._woken.set)
        self._board = QueueBoard(references, lookup, crew.compute)
        self._scan = LibraryScan(self._resolver, crew.offload, clock, crew.spawn, self._on_change)
        self._warmer = Warmer(cache, self._machine, crew.readers, crew.chores, crew.call_soon, self._on_change)
        self._warmer.limit(self._settings.read_limit_bytes_per_s)
        self._models = ModelTier(
            models, self._warmer, self._machine, crew.readers, crew.offload, crew.call_soon, self._on_change
        )
        self._page_watch = PageWatch(self._warmer, self._models, self._machine, crew.offload, self._on_change)
        self._device = DeviceWarmer(cache, shelf, shelf_refusal, self._machine, self.wake)
        self._memory = MemoryWatch(cache, self._machine, crew.compute, default_budget_bytes)
        self._close_asked = asyncio.Event()
        self._closed = False
        self._finished = threading.Event()
        self._dirty = True
        self._applied: PrefetchSettings | None = None
        self._limits = Limits(None, None)
        self._horizon = Horizon()
        self._plan = Plan()
        self._limit_bytes = cache.snapshot().limit_bytes
        self._cached_at_s = float("-inf")
        self._due_at_s = float("inf")
        self._queued_jobs = 0
        self._next_look = Alarm(self._woken.set)
        self._publishing = Alarm(self._publish)
        self._forecast = LastingForecast(catalog, self._machine, crew.chores, crew.call_soon, self._on_change)
        self._history = JobHistory()
        self._batch = BatchLog()
        self._shown = PrefetchSnapshot(enabled=self._settings.enabled), 0

    @property
    def settings(self) -> PrefetchSettings:
        return self._settings

    @property
    def limiter(self) -> RateLimit | None:
        """What all background reads share; None: as fast as the disk."""
        return self._warmer.limiter

    async def run(self) -> None:
        """Keeps the queue's adapters warm until `close`. Also when cancelled, no task, read or thread stays."""
        self._crew.loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work())
        asked = asyncio.create_task(self._close_asked.wait())
        try:
            if not self._closed:
                await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            await self._shut_down({work, asked, *self._crew.tasks})

    def wake(self) -> None:
        """The queue may have changed: look now."""
        self._crew.call_soon(self._woken.set)

    def close(self) -> None:
        """Ends `run`. From another thread than the loop's it returns once everything has ended, or after `GRACE_S`."""
        self._closed = True
        self._crew.call_soon(self._close_asked.set)
        loop = self._crew.loop
        if loop is None:
            self._crew.close()
            self._device.stop()
        elif loop.is_running() and not _is_current(loop):
            self._finished.wait(GRACE_S)

    def configure(self, settings: PrefetchSettings) -> None:
        """Takes effect at once; switching off cancels every read."""
        self._settings = settings
        self._warmer.limit(settings.read_limit_bytes_per_s)
        self.wake()

    def status(self) -> PrefetchStatus:
        """The last look at the queue, with the cache's numbers of this moment."""
        snapshot, revision = self._shown
        return self._device.shown(self._settings, snapshot.status(revision, self._cache.snapshot()))

    def count_warmed(self, key: AdapterKey, nbytes: int, seconds: float) -> None:
        """Somebody asked for the pages of this file, and they have been read. From any thread."""
        self._crew.call_soon(lambda: self._warmer.count_asked(key, nbytes, seconds))

    def plan_for(self, payload: object) -> list[PlannedLora]:
        """What a job with `payload` would load, and where from. Blocking: it looks at the files."""
        references = self._references(payload)
        whereabouts = self._shown[0].whereabouts._replace(resident=resident_keys(self._cache.snapshot()))
        needs = [
            need_of(reference, self._resolver.resolve_one(reference.asks, suggest=not reference.guessed))
            for reference in references.loras
        ]
        return planned_loras(filter(None, needs), references.unknown, whereabouts)

    async def _work(self) -> None:
        self._scan.start()
        while not self._closed:
            self._woken.clear()
            await self._reconcile()
            if self._board.is_behind:
                continue
            busy = self._queued_jobs or self._warmer.readings or self._models.readings
            # Not wait_for: before Python 3.12 it may swallow the cancellation that ends this loop.
            self._next_look.within(BUSY_POLL_S if busy else IDLE_POLL_S)
            await self._woken.wait()

    async def _reconcile(self) -> None:
        """One look at the queue, and everything that follows from it."""
        settings = self._settings
        if settings is not self._applied:
            self._apply(settings)
        visible = self._jobs()
        self._queued_jobs = len(visible)
        running = [job.key for job in takewhile(lambda job: job.running, visible)]
        self._warmer.meter.observe(running, self._machine.clock(), self._machine.progress())
        observed = self._board.observe(visible if settings.enabled else ())
        if settings.enabled and observed.ran_unseen:  # switched off, the queue is only out of sight
            self._count_starts(observed.ran_unseen)
        if observed.changed:
            self._dirty = True
            self._warmer.retry_refused()
        # Not `|=`: it reads before it waits, and would lose what has changed meanwhile.
        if settings.enabled and (changed := await self._board.complete(lambda: self._closed)):
            self._warmer.locate(use.file.path for needs in changed for use in needs.uses)
            self._dirty = True
        if self._models.observe(self._board.needs if settings.model_tier else ()):
            self._crew.spawn(self._models.look_up())
        if settings.enabled:
            self._take_starts()
            self._forecast.follow(settings)
            self._scan.follow(self._board.needs)
            self._warmer.look_for_stalls(self._models.under_way)
            self._warmer.look_at_job(self._board.needs, self._models.read_by_job)
            if not self._models.readings:
                self._warmer.survey(self._resolver.files, self._models.under_way, measures=not self._scan.is_going_on)
        await self._look_at_memory()
        stats = self._cache.stats()
        self._history.observe(running, demands(stats, self._warmer.tally.figures), self._machine.clock())
        self._batch.look(self._queued_jobs, stats.waits, self._published)
        self._look_at_cache()
        due_at_s = min(self._due_at_s, self._warmer.retry_at_s, self._models.retry_at_s)
        if self._dirty or self._machine.clock() >= due_at_s:
            self._replan()
        self._models.proceed()
        self._device.follow(settings, self._board.needs, self._warmer.resident)
        self._publish()

    def _apply(self, settings: PrefetchSettings) -> None:
        self._warmer.configure(settings)
        self._applied = settings
        self._memory.hurry()
        self._dirty = True

    def _take_starts(self) -> None:
        """Jobs that have started: their demands are counted, their files are claimed. The plan stays as it is."""
        started = self._board.newly_started()
        self._count_starts(started)
        if started or self._dirty:
            self._warmer.claim(self._board.running_keys())

    def _look_at_cache(self) -> None:
        """Once per poll, since it costs by the adapter: what it has let go has to be fetched again."""
        now_s = self._machine.clock()
        if now_s - self._cached_at_s < BUSY_POLL_S:
            return
        self._cached_at_s = now_s
        cached, known = self._cache.snapshot(), self._warmer.resident & self._plan.resident
        resident = resident_keys(cached, known)
        self._dirty |= cached.limit_bytes != self._limit_bytes or not known <= resident
        self._warmer.resident, self._limit_bytes = resident, cached.limit_bytes

    def _replan(self) -> None:
        self._dirty = False
        settings = self._settings
        self._limits = Limits(
            self._limit_bytes if settings.resident_tier else None,
            self._memory.page_bytes(settings) if settings.page_tier else None,
            settings.depth_jobs,
        )
        self._warmer.retry_unread()
        self._horizon.follow(self._board.needs)
        disk_of = None if self._warmer.has_one_disk else self._warmer.disk_of
        plan = self._horizon.plan(self._limits, self._warmer.warm(), disk_of)
        if plan.next_uses != self._plan.next_uses:
            self._cache.plan_uses(plan.next_uses)
        now_s = self._machine.clock()
        due = Due(plan.fetches, None)
        if settings.just_in_time:
            due = self._warmer.meter.timetable(now_s).due(plan.fetches, plan.rest)
        self._due_at_s = float("inf") if due.wait_s is None else now_s + due.wait_s
        if settings.enabled and settings.predict and not plan.fetches:
            plan = speculate(plan, tuple(self._forecast.next_uses()), self._limits, self._warmer.warm())
            due = Due(plan.fetches, None)
        self._plan = plan
        self._warmer.follow(plan, due.fetches)
        models_wait_s = self._models.plan(lambda: self._memory.room_beside(plan.pages, settings), settings, now_s)
        if models_wait_s is not None:
            self._due_at_s = min(self._due_at_s, now_s + models_wait_s)

    def _count_starts(self, started: Sequence[JobNeeds]) -> None:
        """Jobs have started: what they read through the page cache was there in time, or was not."""
        self._batch.count_starts(len(started))
        for needs in started:
            self._models.count_start(needs.job.key)
            if self._settings.predict:
                self._forecast.record(needs)
            loading = {reading.fetch.file.key for reading in self._warmer.readings if reading.fetch.tier == "page"}
            for use in needs.uses:
                if not use.via_cache:
                    self._warmer.tally.count_demand(use.key, self._warmer.pages, loading)
            self._warmer.tally.claim(needs.keys)

    def _publish(self) -> None:
        snapshot = PrefetchSnapshot(
            enabled=self._settings.enabled,
            jobs=self._board.needs,
            queued_jobs=self._queued_jobs,
            whereabouts=self._warmer.whereabouts(self._limits),
            in_flight=tuple(fetch_status(reading) for reading in self._warmer.readings),
            page=self._warmer.tally.figures,
            predictor=self._forecast.stats(),
            under_pressure=self._memory.is_short(self._settings),
            history=self._history.records(),
            paused=self._warmer.paused,
            models=self._models.snapshot(),
        )
        shown, revision = self._shown
        if snapshot != shown:
            self._shown = snapshot, revision + 1

    def _published(self) -> PrefetchStatus:
        self._publish()
        return self.status()

    async def _look_at_memory(self) -> None:
        """Now and then, also when switched off: jobs fill the cache all the same. The first look is waited for: it sets
        the page budget."""
        if not self._memory.take_turn(MEMORY_TICK_S):
            return
        if not self._memory.has_looked:
            await self._watch_memory()
        else:
            self._crew.spawn(self._watch_memory())
            self._crew.spawn(self._page_watch.look(self._board.needs))

    async def _watch_memory(self) -> None:
        """Follows the machine's memory with the resident budget."""
        if await self._memory.look(self._settings):
            self._warmer.retry_refused()
            self._cached_at_s = float("-inf")
        self._on_change()

    def _on_change(self, replan: bool = True) -> None:
        nothing_left = self._settings.predict and not self._warmer.readings
        if replan or nothing_left:
            self._dirty = True
            self._woken.set()
        else:
            self._publishing.within(PUBLISH_S)  # many small files end in a row; a status is for people

    async def _shut_down(self, tasks: set[asyncio.Task[Any]]) -> None:
        self._closed = True
        self._warmer.stop()
        self._models.stop()
        self._device.stop()
        for task in tasks:
            task.cancel()
        self._forecast.keep()
        self._crew.close()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
            futures: tuple[Future[Any], ...] = self._warmer.futures + self._models.futures + self._device.futures
            reads = [asyncio.wrap_future(future) for future in futures]
            if reads:
                await asyncio.wait(reads, timeout=GRACE_S)
        finally:
            self._publish()
            self._next_look.stop()
            self._publishing.stop()
            if not join_all((self._crew, self._device), JOIN_S):
                logger.warning("a read does not end; its thread is left behind")
            self._finished.set()


def _is_current(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
