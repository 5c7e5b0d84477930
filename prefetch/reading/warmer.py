"""Warmer: carries out the plan. Knows what is being read, what is warm, what failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from ...loaders.system.disk_kind import Disk
from ...loaders.system.rate_limit import RateLimit
from ...lora.library.file import AdapterKey, LoraFile
from ..disks.disks import Disks
from ..disks.job_watch import JobWatch
from ..machine import Machine
from ..planning.pace import PaceMeter
from ..planning.plan import Fetch, Limits, Plan, Warm
from ..pool import Pool
from ..queue.need import JobNeeds
from ..settings import PrefetchSettings
from .lane import Ended, read_on
from .page_tally import PageTally
from .reading import Outcome, Read, Reading
from .schedule import Line, Schedule
from .unreadable import Unreadable
from .whereabouts import Whereabouts

if TYPE_CHECKING:
    from ...lora.cache.cache import AdapterCache

JOB_READS = "the running job reads this disk"


class Warmer:
    """Owned by the event loop; `call_soon` brings the ends of readings back onto it."""

    def __init__(
        self,
        cache: AdapterCache,
        machine: Machine,
        readers: Pool,
        chores: Pool,
        call_soon: Callable[[Callable[[], None]], None],
        changed: Callable[[bool], None],
    ) -> None:
        """`changed(replan)` is called on the loop whenever a reading has ended; True when the plan no longer fits."""
        self.tally = PageTally()
        self.resident: frozenset[AdapterKey] = frozenset()
        """Adapters in the cache at the last look, and those brought there since."""
        self.limiter: RateLimit | None = None
        self._cache = cache
        self._machine = machine
        self._pool = readers
        self._chores = chores
        self._call_soon = call_soon
        self._changed = changed
        self._disks = Disks(machine, chores, call_soon, self._on_disks)
        self._watch = JobWatch(machine, self._disks, chores, call_soon, self._on_watch)
        self._schedule = Schedule(self._disks, self._make, self._launch, self._watch.keeps_off, self._is_urgent)
        self.meter = PaceMeter(self._schedule.line_of)
        self._lanes: list[Future[None]] = []
        self._ends: deque[Ended] = deque()
        self._is_told = False
        """The loop will look at `_ends`."""
        self._plan = Plan()
        self._running: Container[AdapterKey] = frozenset()
        self._unreadable = Unreadable()
        # Replaced and never changed, so that a snapshot can keep them.
        self._pages: Mapping[AdapterKey, bool] = {}
        self._no_room: frozenset[AdapterKey] = frozenset()
        """Adapters that the cache has refused for now."""

    @property
    def pages(self) -> Mapping[AdapterKey, bool]:
        """Files whose pages are warm -> whether the page cache can be asked if they still are."""
        return self._pages

    @property
    def retry_at_s(self) -> float:
        """When `retry_unread` has something to do next."""
        return self._unreadable.retry_at_s

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Reads going on or paused for somebody; those told to stop are left out."""
        return tuple(reading for reading in self._schedule.readings if not reading.is_cancelled)

    @property
    def futures(self) -> tuple[Future[None], ...]:
        """Of the threads that read."""
        return tuple(self._lanes)

    @property
    def paused(self) -> str:
        """Why files that are due are not being read; "" when they are."""
        return JOB_READS if self._schedule.is_yielding else ""

    def configure(self, settings: PrefetchSettings) -> None:
        """Takes effect with the next plan."""
        self._schedule.settings = settings

    def limit(self, bytes_per_s: int | None) -> None:
        """All background reads together, at once: who reads asks for the limit again. From any thread."""
        if bytes_per_s != (self.limiter and self.limiter.bytes_per_s):
            self.limiter = None if bytes_per_s is None else RateLimit(bytes_per_s)

    def warm(self) -> Warm:
        """The plan's view of what need not be fetched."""
        return Warm(self.resident, self._pages, self._unreadable.problems, self._no_room)

    def whereabouts(self, limits: Limits) -> Whereabouts:
        """Without what the cache knows better, and without the page budget, which moves with every look at memory."""
        return Whereabouts(
            limits=limits._replace(page_bytes=limits.page_bytes and 1),
            pages=self._pages,
            loading=frozenset(reading.fetch.key for reading in self.readings),
            no_room=self._no_room,
            failed=self._unreadable.problems,
        )

    def retry_refused(self) -> None:
        """The queue has moved: what the cache had no room for may fit now."""
        self._no_room = frozenset()

    def retry_unread(self) -> None:
        """What was not to blame for its failed read may be read again, once its time has come."""
        self._unreadable.retry(self._machine.clock())

    def claim(self, running: Set[AdapterKey]) -> None:
        """What running jobs read: warming it is not in vain any more."""
        self._running = running
        self.tally.claim(running)

    def follow(self, plan: Plan, due: Sequence[Fetch]) -> None:
        """Stops reads that nobody wants any more and starts those of `due` that come first."""
        self._plan = plan
        self._schedule.keep(plan.wants)
        self.forget_pages(set(self._pages).difference(plan.pages))
        self.tally.write_off(plan.pages, plan.resident)
        self._schedule.follow(due)

    def stop(self) -> None:
        """Cancels everything."""
        self._disks.stop_measuring()
        self._schedule.clear()

    def look_at_job(self, jobs: Sequence[JobNeeds], models: Iterable[str]) -> None:
        """Once per poll: does the running job read? `jobs`: the visible ones, running first; `models`: paths of what it
        reads beside LoRAs."""
        yields = self._schedule.settings.yield_to_job
        running = tuple(takewhile(lambda needs: needs.job.running, jobs)) if yields else ()
        is_waiting = any(reading.is_demanded for reading in self._schedule.readings)
        self._watch.look(running, models if yields else (), is_waiting=is_waiting)
        if self._schedule.is_yielding:
            self._schedule.balance()  # what waits may have become urgent

    def look_for_stalls(self, models: Iterable[Read]) -> None:
        """Once per poll: which of our reads, and of those of `models`, stand still?"""
        now_s = self._machine.clock()
        stalled = tuple(read.path for read in (*self._schedule.readings, *models) if read.gate.is_stalled(now_s))
        if stalled != self._schedule.stalled:
            self._schedule.stalled = stalled
            self._changed(True)

    def locate(self, paths: Iterable[str]) -> None:
        """Finds out which disks these lie on."""
        self._disks.locate(paths)

    @property
    def has_one_disk(self) -> bool:
        """All that `locate` was asked for lies on one."""
        return self._disks.is_one

    def disk_of(self, path: str) -> Disk | None:
        """None until it is known."""
        return self._disks.under(path)

    def _is_urgent(self, fetch: Fetch) -> bool:
        return self.meter.timetable(self._machine.clock()).is_urgent(fetch)

    def line_of(self, path: str) -> Line:
        """The files that this one is read in one order with."""
        return self._schedule.line_of(path)

    def is_reading(self, path: str) -> bool:
        """Whether a LoRA of its disk is being read, or paused for another, or as many on all disks as the user has set.
        One that was told to stop does not count: on a share that is gone it never ends. Of a file whose disk is not
        known, anything may lie beside it."""
        others = [reading.path for reading in self.readings]
        most, disk = self._schedule.settings.concurrency, self.disk_of(path)
        if most is not None and [*map(self.line_of, others)].count(None) >= most:
            return True
        return any(disk is None or (self.disk_of(other) or self.line_of(other)) in (disk, None) for other in others)

    def keeps_off(self, path: str) -> bool:
        """Whether a file of a later job should be left alone because the running job reads the same disk."""
        return self._watch.keeps_off(self._disks.under(path))

    def survey(self, files: Sequence[LoraFile], models: Iterable[Read], *, measures: bool) -> None:
        """Uses a moment in which nothing is read to get to know the disks of the library. `models`: reads of these that
        were told to stop and have not ended."""
        if self._schedule.is_idle and not self._watch.keeps_off(None):
            busy = frozenset(self._disks.under(read.path) for read in (*self._schedule.readings, *models))
            self._disks.survey(files, self._schedule.settings, measures=measures, busy=busy)

    def count_asked(self, key: AdapterKey, nbytes: int, seconds: float) -> None:
        """Pages that somebody asked for by hand have been read; whoever uses them, that was not in vain."""
        self.tally.count_warmed(key, nbytes, seconds, claimed=True)
        self._changed(False)

    def forget_pages(self, keys: Iterable[AdapterKey]) -> None:
        """The kernel has taken these back, or may: nobody needs them."""
        if keys := self._pages.keys() & keys:
            # Copied whole and then thinned out: a key that is put in anew has its hash worked out anew.
            pages = dict(self._pages)
            for key in keys:
                del pages[key]
            self._pages = pages

    def _on_disks(self) -> None:
        """What is due depends on the disk, and so does how much of it is read at a time."""
        self._changed(True)

    def _on_watch(self) -> None:
        self._schedule.balance()
        self._changed(False)

    def _make(self, fetch: Fetch) -> Reading:
        return Reading(fetch, self._limit, self._joined, self._machine.clock)

    def _launch(self, first: Reading, ahead: deque[Reading]) -> None:
        lane = self._pool.submit(partial(read_on, first, ahead, self._read, self._tell))
        self._lanes = [*(lane for lane in self._lanes if not lane.done()), lane]

    def _limit(self) -> RateLimit | None:
        return self.limiter

    def _joined(self) -> None:
        """In the thread whose read a demand has joined."""
        self._call_soon(self._schedule.balance)

    def _read(self, reading: Reading) -> Outcome:
        """In a thread."""
        return reading.run(self._cache, self._machine)

    def _tell(self, ended: Ended) -> None:
        """In the thread that has read."""
        self._ends.append(ended)
        if not self._is_told:
            self._is_told = True
            self._call_soon(self.take_ends)

    def take_ends(self) -> None:
        """Of readings: also before a plan, which would count on what has moved on."""
        # First, so that nothing is left lying that comes in from here on.
        self._is_told = False
        while self._ends:
            self._ended(*self._ends.popleft())

    def _ended(self, reading: Reading, outcome: Outcome, follower: Reading | None) -> None:
        fetch = reading.fetch
        beside = min(reading.beside, self._schedule.beside(reading))
        self._schedule.ended(reading, follower)
        if outcome.state == "no_room" and self._schedule.make_room(fetch.key):
            outcome = Outcome("cancelled")
        self._record(reading, outcome, beside)
        self._schedule.go_on(reading, follower)
        is_outdated = outcome.state == "no_room" or (outcome.state == "cancelled" and self._plan.wants(fetch.key))
        has_more = bool(self._plan.rest) and self._schedule.is_dry(self._schedule.line_of(reading.path))
        self._changed(is_outdated or has_more)

    def _record(self, reading: Reading, outcome: Outcome, beside: int) -> None:
        fetch, key = reading.fetch, reading.fetch.file.key
        if fetch.tier == "page" and self._unreadable.counts(key, outcome):
            self.tally.count_warmed(key, outcome.read_bytes, outcome.seconds, claimed=key in self._running)
            # A later load finds the pages warm: only this read tells what a cold one costs, unless it was held back.
            if outcome.state == "ready" and not reading.gate.was_limited:
                self._cache.record_cold_read(key, outcome.seconds)
        if outcome.state == "ready":
            self.meter.count_read(outcome.read_bytes, outcome.seconds, key.path, beside=beside)
        self._unreadable.note(key, outcome, self._machine.clock())
        if outcome.state == "no_room":
            self._no_room |= {key}
        elif fetch.tier == "resident" and outcome.state in ("ready", "already"):
            self.resident |= {key}
        elif fetch.tier == "page" and outcome.state in ("ready", "already") and key in self._plan.pages:
            self._pages = {**self._pages, key: outcome.keeps_pages}
