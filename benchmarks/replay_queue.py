"""Replay: one trace through one loader, on a simulated clock, with one simulated disk whose demands go first.

A read that a nearer need overtakes is paused and goes on afterwards, as it does in the schedule.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from replay_loaders import Loader
from replay_trace import DEPTH, Trace, TraceJob, enqueue, take_out_cancelled


class SimulatedClock:
    """Seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Replay:
    """`clock` is the loader's too. `bytes_per_s`: what the disk gives."""

    trace: Trace
    bytes_per_s: float
    clock: SimulatedClock
    loader: Loader
    queue: list[TraceJob] = field(default_factory=list)
    running: TraceJob | None = None
    ends_s: float = math.inf
    idle_since_s: float = 0.0
    in_flight: str | None = None
    left_s: float = 0.0
    paused: list[tuple[str, float]] = field(default_factory=list)
    """Reads that were overtaken and what is left of them, the last one last."""
    asked_at_s: float = math.inf
    moved_bytes: float = 0.0
    given_up_bytes: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    colds_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coming = deque(self.trace.jobs)

    def run(self) -> dict[str, Any]:
        while self.coming or self.queue or self.running:
            if self.running is None and self.queue:
                self._start(self.queue.pop(0))
            # New jobs come while one runs, so that even one that jumps the queue has been seen before its turn.
            self._submit()
            self._drop_unwanted()
            if self.in_flight and self.loader.overtakes(self.in_flight, self.running, self.queue):
                self.paused.append((self.in_flight, self.left_s))
                self.in_flight, self.left_s = None, 0.0
            if self.in_flight is None:
                self._fetch()
            self._step()
        self.loader.clear()
        return self._report()

    def _submit(self) -> None:
        while self.coming and len(self.queue) < DEPTH and self.clock.now_s >= self._submits_s(self.coming[0]):
            job = self.coming.popleft()
            if job.freed:
                self._free()
            enqueue(self.queue, job)
        take_out_cancelled(self.queue)

    def _drop_unwanted(self) -> None:
        if self.in_flight and not self.loader.still_wants(self.in_flight, self.running, self.queue):
            self._abandon()
        for read in self.paused[:]:
            if not self.loader.still_wants(read[0], self.running, self.queue):
                self._abandon_paused(read)

    def _free(self) -> None:
        if self.in_flight:
            self._abandon()
        for read in self.paused[:]:
            self._abandon_paused(read)
        self.loader.clear()

    def _submits_s(self, job: TraceJob) -> float:
        if job.after_s is None:
            return 0.0
        return math.inf if self.running or self.queue else self.idle_since_s + job.after_s

    def _step(self) -> None:
        """On to the next thing that happens."""
        if self.running is None and self.queue:
            return
        now_s = self.clock.now_s
        link_s = now_s + self.left_s if self.in_flight else math.inf
        submits_s = self._submits_s(self.coming[0]) if self.coming and self.running is None else math.inf
        self.clock.now_s = max(now_s, min(self.ends_s, link_s, self.asked_at_s, submits_s))
        self.left_s -= self.clock.now_s - now_s
        if self.in_flight and link_s <= self.clock.now_s:
            self._arrived()
        if self.running is not None and self.ends_s <= self.clock.now_s:
            self.loader.finish(self.running)
            self.running, self.ends_s, self.idle_since_s = None, math.inf, self.clock.now_s

    def _start(self, job: TraceJob) -> None:
        """Demands go first; what was being read ahead goes on afterwards."""
        wait_s = 0.0
        if self.in_flight in job.loras:
            wait_s = self.left_s
            self._arrived()
        for name, left_s in self.paused[:]:
            if name in job.loras:
                wait_s += left_s
                self.paused.remove((name, left_s))
                self._take(name)
        missing = self.loader.start(job)
        missing_bytes = sum(self.trace.sizes[name] for name in missing)
        self.moved_bytes += missing_bytes
        wait_s += missing_bytes / self.bytes_per_s
        self.waits_s.append(wait_s)
        self.colds_s.append(sum(self.trace.sizes[name] for name in job.loras) / self.bytes_per_s)
        self.clock.now_s += wait_s
        self.running, self.ends_s = job, self.clock.now_s + job.run_s

    def _fetch(self) -> None:
        if self.paused and not self.loader.overtakes(self.paused[-1][0], self.running, self.queue):
            self.in_flight, self.left_s = self.paused.pop()
            return
        wanted = self.loader.next_fetch(self.running, self.queue)
        ask_again = wanted.name is None and wanted.wait_s is not None
        self.asked_at_s = self.clock.now_s + max(wanted.wait_s or 0.0, 0.01) if ask_again else math.inf
        if wanted.name is not None:
            self.in_flight = wanted.name
            self.left_s = self.trace.sizes[wanted.name] / self.bytes_per_s
        elif self.paused:
            self.in_flight, self.left_s = self.paused.pop()

    def _arrived(self) -> None:
        assert self.in_flight is not None
        self._take(self.in_flight)
        self.in_flight, self.left_s = None, 0.0

    def _take(self, name: str) -> None:
        """All of it has been read."""
        size_bytes = self.trace.sizes[name]
        self.moved_bytes += size_bytes
        self.loader.fetched(name, size_bytes / self.bytes_per_s)

    def _abandon(self) -> None:
        assert self.in_flight is not None
        self._give_up(self.in_flight, self.left_s)
        self.in_flight, self.left_s = None, 0.0

    def _abandon_paused(self, read: tuple[str, float]) -> None:
        self.paused.remove(read)
        self._give_up(*read)

    def _give_up(self, name: str, left_s: float) -> None:
        size_bytes = self.trace.sizes[name]
        read_bytes = size_bytes - left_s * self.bytes_per_s
        self.moved_bytes += read_bytes
        # The cache counts all of it as wasted.
        self.given_up_bytes += size_bytes - read_bytes
        self.loader.abandoned(name)

    def _report(self) -> dict[str, Any]:
        """Times without the first job's."""
        stats, budget = self.loader.cache.stats(), self.loader.budget
        waits = sorted(self.waits_s[1:])
        wasted_bytes = stats.wasted_bytes - self.given_up_bytes
        return {
            "hidden": round(1 - sum(waits) / sum(self.colds_s[1:]), 4),
            "wait_p50_s": round(waits[math.ceil(0.50 * len(waits)) - 1], 3),
            "wait_p99_s": round(waits[math.ceil(0.99 * len(waits)) - 1], 3),
            "moved_gb": round(self.moved_bytes / 1e9, 2),
            "read_per_demanded": round(self.moved_bytes / stats.demand_bytes, 4),
            "wasted_share": round(wasted_bytes / self.moved_bytes, 4),
            "pollution": stats.pollution,
            "peak_of_budget": round(budget.peak_bytes / budget.limit_bytes, 4),
            "jobs": len(self.waits_s),
        }
