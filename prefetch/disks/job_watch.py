"""JobWatch: keeps an eye on what the running job reads, and says which disks others should keep off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from ...loaders.system.disk_kind import Disk
from ..machine import Machine
from ..pool import Pool
from ..queue.job import JobKey
from ..queue.need import JobNeeds
from .disks import Disks
from .job_reads import JobReads

FRESH_S = 0.05
"""So old a sample is as good as a new one: jobs that only show what is cached go by in milliseconds."""


class Sample(NamedTuple):
    """What was counted at one moment."""

    jobs: tuple[JobKey, ...]
    is_waiting: bool
    read_bytes: int | None
    at_s: float


class JobWatch:
    """Owned by the event loop. The counters are read in `chores`: a process of many threads makes them slow."""

    def __init__(
        self,
        machine: Machine,
        disks: Disks,
        chores: Pool,
        call_soon: Callable[[Callable[[], None]], None],
        moved: Callable[[], None],
    ) -> None:
        """`moved` is called on the loop when the answers of `keeps_off` have changed."""
        self._machine = machine
        self._disks = disks
        self._chores = chores
        self._call_soon = call_soon
        self._moved = moved
        self._reads = JobReads()
        self._jobs: tuple[JobKey, ...] = ()
        self._its_disks: frozenset[Disk | None] = frozenset()
        self._is_sampling = False
        self._sampled: Sample | None = None
        self._sampled_bytes: int | None = None
        self._sampled_at_s = float("-inf")
        self._is_reading = False

    def keeps_off(self, disk: Disk | None) -> bool:
        """Whether reads for later jobs should leave the disk to the running job; None: a disk not known yet."""
        where = self._its_disks
        return self._is_reading and (disk is None or not where or disk in where or None in where)

    def look(self, running: Sequence[JobNeeds], models: Iterable[str] = (), *, is_waiting: bool) -> None:
        """Once per poll. `models`: paths that the job reads beside its LoRAs; `is_waiting`: it waits for a read of
        ours."""
        self._take()
        jobs = tuple([needs.job.key for needs in running])
        is_fresh = self._machine.clock() - self._sampled_at_s < FRESH_S
        if jobs != self._jobs:
            self._jobs = jobs
            self._reads.forget()
            if is_fresh:
                # What the job before read in that moment is not worth another look at the counters.
                self._reads.observe(self._sampled_bytes, self._sampled_at_s)
        paths = {use.file.path for needs in running for use in needs.uses}.union(models)
        self._disks.locate(paths)
        self._its_disks = frozenset(map(self._disks.under, paths))
        if jobs and not self._is_sampling and not is_fresh:
            self._is_sampling = True
            with suppress(RuntimeError):  # the pool is closed: the end has come
                sample = self._chores.submit(self._sample)
                sample.add_done_callback(partial(self._landed, jobs, is_waiting))
        self._update()

    def _sample(self) -> tuple[int | None, float]:
        """In a thread."""
        return self._machine.foreign_read_bytes(), self._machine.clock()

    def _landed(self, jobs: tuple[JobKey, ...], is_waiting: bool, future: Future[tuple[int | None, float]]) -> None:
        """In the thread that has sampled."""
        read_bytes, now_s = (None, self._machine.clock()) if future.exception() else future.result()
        self._sampled = Sample(jobs, is_waiting, read_bytes, now_s)
        # A job's first sample says nothing by itself: the next look takes it in, at no cost of its own.
        if is_waiting or self._reads.has_sample:
            self._call_soon(self._take)

    def _take(self) -> None:
        sample, self._sampled = self._sampled, None
        if sample is None:
            return
        self._is_sampling = False
        self._sampled_bytes, self._sampled_at_s = sample.read_bytes, sample.at_s
        if sample.jobs == self._jobs:
            self._reads.observe(sample.read_bytes, sample.at_s, waits=sample.is_waiting)
            self._update()

    def _update(self) -> None:
        is_reading = bool(self._jobs) and self._reads.wants_disk(self._machine.clock())
        if is_reading != self._is_reading:
            self._is_reading = is_reading
            self._moved()
