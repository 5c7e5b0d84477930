"""What can stand between a queue and a disk: ours (the real planner on the real cache) and what it is compared with."""

from __future__ import annotations

import bisect
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from replay_trace import Trace, TraceJob

from warmstack.lora.adapter import Adapter
from warmstack.lora.budget import ByteBudget
from warmstack.lora.cache import AdapterCache
from warmstack.lora.file import LoraFile
from warmstack.lora.lease import Lease
from warmstack.prefetch.horizon import make_plan
from warmstack.prefetch.job import LoraReference, QueuedJob, References
from warmstack.prefetch.need import JobNeeds, Need, Resolution
from warmstack.prefetch.pace import PaceMeter
from warmstack.prefetch.plan import Limits, Warm
from warmstack.prefetch.queue_board import HORIZON_JOBS
from warmstack.prefetch.view import resident_keys

Clock = Callable[[], float]


class Next(NamedTuple):
    """What a policy wants of an idle disk: a file now, or to be asked again."""

    name: str | None = None
    wait_s: float | None = None


class Policy(Protocol):
    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob], in_flight: str | None) -> Next: ...

    def still_wanted(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool: ...

    def fetched(self, name: str, seconds: float, *, whole: bool) -> None: ...

    def start(self, job: TraceJob) -> list[str]:
        """The job's LoRAs that have to be read now, those in flight not counted."""

    def finish(self, job: TraceJob) -> None: ...

    @property
    def wasted_bytes(self) -> int: ...

    @property
    def peak_bytes(self) -> int: ...


class WarmStack:
    """The real planner, pace and adapter cache; files are sparse, reading them takes no time but the simulated."""

    def __init__(self, trace: Trace, folder: Path, budget_bytes: int, rate: float, clock: Clock) -> None:
        self._files = {name: _sparse(folder, name, size) for name, size in trace.sizes.items()}
        self._budget = ByteBudget(budget_bytes)
        self._cache = AdapterCache(self._budget, load=_load, clock=clock)
        for file in self._files.values():
            self._cache.record_cold_read(file.key, file.size_bytes / rate)
        self._limits = Limits(budget_bytes, None)
        self._meter = PaceMeter()
        self._clock = clock
        self._needs: dict[int, JobNeeds] = {}
        self._leases: list[Lease] = []
        self._cancelled_bytes = 0

    @property
    def wasted_bytes(self) -> int:
        return self._cache.stats().wasted_bytes

    @property
    def peak_bytes(self) -> int:
        return self._budget.peak_bytes

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob], in_flight: str | None) -> Next:
        jobs = ([running] if running else []) + list(queue[: HORIZON_JOBS - bool(running)])
        refused: set[object] = set()
        while True:
            warm = Warm(resident=resident_keys(self._cache.snapshot()), failed=refused)  # type: ignore[arg-type]
            plan = make_plan([self._needs_of(job) for job in jobs], self._limits, warm)
            self._cache.plan_uses(plan.next_uses)
            due = self._meter.pace(self._clock()).due(plan.fetches)
            if not due.fetches:
                return Next(wait_s=due.wait_s)
            file = due.fetches[0].file
            if self._cache.prefetch(file) == "ready":
                return Next(file.name)
            refused.add(file.key)

    def still_wanted(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        return any(name in job.loras for job in ([running] if running else []) + list(queue))

    def fetched(self, name: str, seconds: float, *, whole: bool) -> None:
        file = self._files[name]
        if whole:
            self._meter.count_read(file.size_bytes, seconds)
        else:
            self._cache.evict(file.key)

    def start(self, job: TraceJob) -> list[str]:
        self._meter.observe([str(job.id)], self._clock())
        leases = [(name, self._cache.acquire(self._files[name])) for name in job.loras]
        self._leases = [lease for _, lease in leases]
        return [name for name, lease in leases if lease.outcome == "miss"]

    def finish(self, job: TraceJob) -> None:
        self._meter.observe([], self._clock())
        self._needs.pop(job.id, None)
        for lease in self._leases:
            lease.release()
        self._leases = []

    def _needs_of(self, job: TraceJob) -> JobNeeds:
        if job.id not in self._needs:
            needs = tuple(
                Need(LoraReference(name, resident=True), Resolution("found", self._files[name])) for name in job.loras
            )
            self._needs[job.id] = JobNeeds(QueuedJob(str(job.id), None), References(), needs)
        return self._needs[job.id]


class Simple:
    """A cache on demand, or one that also fetches for the next `depth` jobs. `rank` says who goes first: the least."""

    def __init__(self, trace: Trace, budget_bytes: int, clock: Clock, *, rank: str, depth: int = 0) -> None:
        self._sizes = trace.sizes
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._depth = depth
        self._rank = getattr(self, f"_{rank}")
        self._future: dict[str, list[int]] = defaultdict(list)
        for job in trace.jobs:
            for name in job.loras if job.cancel_at is None else ():
                self._future[name].append(job.id)
        self._resident: set[str] = set()
        self._unused: set[str] = set()
        self._used_bytes = 0
        self._last: dict[str, float] = {}
        self._count: Counter[str] = Counter()
        self._credit: dict[str, float] = {}
        self._age = 0.0
        self._now_id = 0
        self._protected: set[str] = set()
        self.wasted_bytes = 0
        self.peak_bytes = 0

    def next_fetch(self, running: TraceJob | None, queue: Sequence[TraceJob], in_flight: str | None) -> Next:
        ahead = {name for job in queue[: self._depth] for name in job.loras}
        for job in queue[: self._depth]:
            for name in job.loras:
                if name not in self._resident and self._admit(name, self._protected | ahead):
                    self._unused.add(name)
                    return Next(name)
        return Next()

    def still_wanted(self, name: str, running: TraceJob | None, queue: Sequence[TraceJob]) -> bool:
        return any(name in job.loras for job in ([running] if running else []) + list(queue))

    def fetched(self, name: str, seconds: float, *, whole: bool) -> None:
        if not whole:
            self._drop(name)

    def start(self, job: TraceJob) -> list[str]:
        self._protected = set(job.loras)
        self._now_id = job.id
        missing = [name for name in job.loras if name not in self._resident]
        for name in job.loras:
            self._unused.discard(name)
            self._last[name] = self._clock()
            self._count[name] += 1
            self._credit[name] = self._age + self._count[name] / self._sizes[name]
        for name in missing:
            self._admit(name, self._protected)
        return missing

    def finish(self, job: TraceJob) -> None:
        self._protected = set()

    def _admit(self, name: str, protected: Iterable[str]) -> bool:
        free = self._budget_bytes - self._used_bytes
        victims = []
        for victim in sorted(self._resident - set(protected), key=self._rank):
            if free >= self._sizes[name]:
                break
            victims.append(victim)
            free += self._sizes[victim]
        if free < self._sizes[name]:
            return False
        for victim in victims:
            self._age = max(self._age, self._credit.get(victim, 0.0))
            self._drop(victim)
        self._resident.add(name)
        self._used_bytes += self._sizes[name]
        self.peak_bytes = max(self.peak_bytes, self._used_bytes)
        return True

    def _drop(self, name: str) -> None:
        self._resident.discard(name)
        self._used_bytes -= self._sizes[name]
        if name in self._unused:
            self._unused.discard(name)
            self.wasted_bytes += self._sizes[name]

    def _lru(self, name: str) -> float:
        return self._last.get(name, self._clock())

    def _lfu(self, name: str) -> float:
        return self._count[name]

    def _gdsf(self, name: str) -> float:
        return self._credit.get(name, self._age)

    def _min(self, name: str) -> float:
        uses = self._future[name]
        at = bisect.bisect_right(uses, self._now_id)
        return -uses[at] if at < len(uses) else float("-inf")


class _Memory:
    """Stands for the buffer of an adapter that takes no memory."""


def _load(file: LoraFile, *, storage: str, **_: object) -> Adapter:
    return Adapter(file.key, {}, {}, file.size_bytes, storage, _Memory() if storage == "private" else None)  # type: ignore[arg-type]


def _sparse(folder: Path, name: str, size_bytes: int) -> LoraFile:
    path = folder / name
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    return LoraFile(name, str(path), size_bytes, os.stat(path).st_mtime_ns)
