"""What can stand between a queue and a disk. All of it is the real cache under a real policy; ours is planned as well.

Files are sparse and reading them takes no time but the simulated: an adapter is in the cache, pinned, from the moment
its read starts, as its reservation would be.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from replay_trace import Trace, TraceJob, run_order

from warmstack.loaders.reading.tensor_file import Storage
from warmstack.lora.cache.adapter import Adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.lease import Lease
from warmstack.lora.cache.policies import EvictionPolicy, NextUse
from warmstack.lora.library.file import AdapterKey, LoraFile
from warmstack.prefetch.planning.forecast import Forecast
from warmstack.prefetch.planning.horizon import Horizon
from warmstack.prefetch.planning.pace import PaceMeter
from warmstack.prefetch.planning.plan import UNQUEUED, FetchKey, Limits, Plan, Warm, speculate
from warmstack.prefetch.planning.timetable import Due
from warmstack.prefetch.queue.board import JOBS_IN_SIGHT
from warmstack.prefetch.queue.job import LoraReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds, Need, Resolution
from warmstack.prefetch.reports.view import resident_keys

Clock = Callable[[], float]


class Next(NamedTuple):
    """What a loader wants of an idle disk: a file now, or to be asked again."""

    name: str | None = None
    wait_s: float | None = None


class Loader(Protocol):
    cache: AdapterCache
    budget: ByteBudget

    def start(self, job: TraceJob) -> list[str]:
        """The job's LoRAs that have to be read now."""

    def finish(self, job: TraceJob) -> None: ...

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob]) -> Next: ...

    def still_wants(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool: ...

    def overtakes(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        """Whether the read of `name` pauses for what `next_fetch` will ask for."""

    def fetched(self, name: str, seconds: float) -> None: ...

    def abandoned(self, name: str) -> None: ...

    def clear(self) -> None: ...


class Library:
    """The trace's LoRAs as sparse files."""

    def __init__(self, trace: Trace, folder: Path) -> None:
        self.files = {name: _sparse(folder, name, size) for name, size in trace.sizes.items()}

    def keys(self, job: TraceJob) -> list[AdapterKey]:
        return [self.files[name].key for name in job.loras]


class OnDemand:
    """Reads what a job names when the job starts."""

    def __init__(self, library: Library, budget_bytes: int, clock: Clock, policy: EvictionPolicy) -> None:
        self.budget = ByteBudget(budget_bytes)
        self.cache = AdapterCache(self.budget, load=_load, clock=clock, policy=policy)
        self._files = library.files
        self._keys = library.keys
        self._pinned: set[AdapterKey] = set()
        self._reading: set[AdapterKey] = set()
        self._leases: list[Lease] = []

    def start(self, job: TraceJob) -> list[str]:
        # No adapter of the job makes room for another of them.
        self._pin(set(self._keys(job)))
        return self._acquire(job)

    def finish(self, job: TraceJob) -> None:
        for lease in self._leases:
            lease.release()
        self._leases = []

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob]) -> Next:
        return Next()

    def still_wants(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        return any(name in job.loras for job in (*([running] if running else []), *queue))

    def overtakes(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        return False

    def fetched(self, name: str, seconds: float) -> None:
        self._end(self._files[name])

    def abandoned(self, name: str) -> None:
        self._end(self._files[name])
        self.cache.evict(self._files[name].key)

    def clear(self) -> None:
        self.cache.clear()

    def _acquire(self, job: TraceJob) -> list[str]:
        leases = [(name, self.cache.acquire(self._files[name])) for name in job.loras]
        self._leases = [lease for _, lease in leases]
        return [name for name, lease in leases if lease.outcome == "miss"]

    def _begin(self, file: LoraFile) -> None:
        """`file` is being read from now on ..."""
        self._reading.add(file.key)
        self._pin(self._pinned)

    def _end(self, file: LoraFile) -> None:
        """... until now."""
        self._reading.remove(file.key)
        self._pin(self._pinned - {file.key})

    def _pin(self, keys: set[AdapterKey]) -> None:
        """These, and what is being read."""
        keys = keys | self._reading
        for key in self._pinned - keys:
            self.cache.unpin(key)
        for key in keys - self._pinned:
            self.cache.pin(key)
        self._pinned = keys


class FullFuture(OnDemand):
    """Window-MIN whose window is the whole trace: what no cache on demand can beat (but for unequal sizes)."""

    def __init__(self, trace: Trace, library: Library, budget_bytes: int, clock: Clock) -> None:
        super().__init__(library, budget_bytes, clock, NextUse())
        self._uses: dict[AdapterKey, list[int]] = defaultdict(list)
        for position, job in reversed(list(enumerate(run_order(trace)))):
            for key in self._keys(job):
                self._uses[key].append(position)

    def start(self, job: TraceJob) -> list[str]:
        self.cache.plan_uses({key: uses[-1] for key, uses in self._uses.items() if uses})
        missing = super().start(job)
        for key in self._keys(job):
            self._uses[key].pop()
        return missing


class Ahead(OnDemand):
    """Also fetches for the next `depth` jobs, which lose nothing to each other."""

    def __init__(self, library: Library, budget_bytes: int, clock: Clock, policy: EvictionPolicy, depth: int) -> None:
        super().__init__(library, budget_bytes, clock, policy)
        self._depth = depth

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob]) -> Next:
        uses: dict[AdapterKey, int] = {}
        for position, job in enumerate(queue, 1):
            for key in self._keys(job):
                uses.setdefault(key, position)
        self.cache.plan_uses(uses)
        ahead = list(dict.fromkeys(name for job in queue[: self._depth] for name in job.loras))
        self._pin({self._files[name].key for name in ahead})
        for name in ahead:
            if self.cache.prefetch(self._files[name]) == "ready":
                self._begin(self._files[name])
                return Next(name)
        return Next()


class WarmStack(OnDemand):
    """The real planner, pace and adapter cache, as the prefetcher puts them together."""

    def __init__(self, library: Library, budget_bytes: int, clock: Clock, bytes_per_s: float, *, predict: bool) -> None:
        super().__init__(library, budget_bytes, clock, NextUse())
        for file in library.files.values():
            self.cache.record_cold_read(file.key, file.size_bytes / bytes_per_s)
        self._clock = clock
        self._limits = Limits(budget_bytes, None)
        self._horizon = Horizon()
        self._meter = PaceMeter()
        self._forecast = Forecast() if predict else None
        self._plan = Plan()
        self._needs: dict[int, JobNeeds] = {}

    def start(self, job: TraceJob) -> list[str]:
        self._meter.observe([str(job.id)], self._clock())
        if self._forecast is not None:
            self._forecast.record(self._needs_of(job))
        return self._acquire(job)

    def finish(self, job: TraceJob) -> None:
        super().finish(job)
        self._meter.observe([], self._clock())
        self._needs.pop(job.id, None)

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob]) -> Next:
        refused: set[AdapterKey] = set()
        while True:
            due = self._look(running, queue, refused)
            if not due.fetches:
                return Next(wait_s=due.wait_s)
            file = due.fetches[0].file
            if self.cache.prefetch(file) == "ready":
                self._begin(file)
                return Next(file.name)
            refused.add(file.key)

    def still_wants(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        self._look(running, queue, set())
        return self._plan.wants(FetchKey(self._files[name].key, "resident"))

    def overtakes(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        due = self._look(running, queue, set())
        position = self._plan.next_uses.get(self._files[name].key, UNQUEUED)
        return any(fetch.position < position for fetch in due.fetches[:1])

    def fetched(self, name: str, seconds: float) -> None:
        super().fetched(name, seconds)
        self._meter.count_read(self._files[name].size_bytes, seconds)

    def _look(self, running: TraceJob | None, queue: Sequence[TraceJob], refused: set[AdapterKey]) -> Due:
        jobs = [*([running] if running else []), *queue][:JOBS_IN_SIGHT]
        self._horizon.follow([self._needs_of(job) for job in jobs])
        warm = Warm(resident=resident_keys(self.cache.snapshot()), failed=refused)
        self._plan = self._horizon.plan(self._limits, warm)
        self.cache.plan_uses(self._plan.next_uses)
        if self._forecast is None or self._plan.fetches:
            return self._meter.timetable(self._clock()).due(self._plan.fetches, self._plan.rest)
        self._plan = speculate(self._plan, tuple(self._forecast.next_uses()), self._limits, warm)
        return Due(self._plan.fetches, None)

    def _needs_of(self, job: TraceJob) -> JobNeeds:
        if job.id not in self._needs:
            needs = tuple(
                Need(LoraReference(name, via_cache=True), Resolution("found", self._files[name])) for name in job.loras
            )
            self._needs[job.id] = JobNeeds(QueuedJob(str(job.id), None), References(), needs)
        return self._needs[job.id]


class _Memory(bytearray):
    """Stands for the buffer of an adapter that takes no memory."""


def _load(file: LoraFile, *, storage: Storage, **_: object) -> Adapter:
    return Adapter(file.key, {}, {}, file.size_bytes, storage, _Memory() if storage == "private" else None)


def _sparse(folder: Path, name: str, size_bytes: int) -> LoraFile:
    path = folder / name
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    return LoraFile(name, str(path), size_bytes, os.stat(path).st_mtime_ns)
