"""Traces for replay.py: which LoRAs queued jobs name, in which order, who is cancelled and who jumps the queue.

A trace is a file of JSON lines. The first describes the library: `{"sizes": {name: bytes}}`. Every other line is a job
in order of submission: `{"id": 7, "loras": [names], "run_s": 8.1, "cancel_at": 0.4 | null, "front": false,
"after_s": null, "freed": false}`.

`cancel_at`: the share of the queue that is still before the job when it is taken out. `front`: it is queued before all
others. `after_s`: it is submitted that long after the last job has ended, when nothing is queued; null: as soon as the
queue, which is kept `DEPTH` deep, has a place. `freed`: the host has asked for its memory just before.
"""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DEPTH = 64
CANCELLED = 0.10
FRONT = 0.02
MEDIAN_BYTES = 150e6


class TraceJob(NamedTuple):
    id: int
    loras: tuple[str, ...]
    run_s: float
    cancel_at: float | None = None
    front: bool = False
    after_s: float | None = None
    freed: bool = False


class Trace(NamedTuple):
    sizes: dict[str, int]
    jobs: list[TraceJob]

    @property
    def cancelled_share(self) -> float:
        return sum(job.cancel_at is not None for job in self.jobs) / len(self.jobs)


def workstation(seed: int, jobs: int, *, front: float = FRONT) -> Trace:
    """One person: a stack is varied for a while, now and then a sweep over many LoRAs, favourites come back."""
    rng = random.Random(seed)
    sizes = library(rng, 300)
    return Trace(sizes, finished(rng, _workstation_stacks(rng, list(sizes)), jobs, 8.0, front=front))


def fronts(seed: int, jobs: int) -> Trace:
    """The workstation's jobs, every fifth of them queued before all others."""
    return workstation(seed, jobs, front=0.2)


def cleared(seed: int, jobs: int) -> Trace:
    """The workstation's jobs; a tenth of them goes in blocks, when somebody takes out what he has just queued."""
    rng = random.Random(seed)
    kept = [job._replace(cancel_at=None) for job in workstation(seed, jobs).jobs]
    while sum(job.cancel_at is not None for job in kept) < CANCELLED * jobs:
        first, length = rng.randrange(jobs), rng.randint(4, 30)
        at = rng.random()
        for i in range(first, min(first + length, jobs)):
            kept[i] = kept[i]._replace(cancel_at=at)
    return Trace(workstation(seed, 1).sizes, kept)


def xy_plot(seed: int, jobs: int) -> Trace:
    """Grids: every LoRA of one axis with every strength or seed of the other, beside a stack that stays."""
    rng = random.Random(seed)
    sizes = library(rng, 300)
    names = list(sizes)

    def stacks() -> Iterator[tuple[str, ...]]:
        while True:
            base, swept = rng.sample(names, rng.randint(0, 2)), rng.sample(names, rng.randint(5, 30))
            columns = rng.randint(1, 6)
            by_row = rng.random() < 0.5
            for i in range(len(swept) * columns):
                yield tuple(dict.fromkeys([*base, swept[i // columns if by_row else i % len(swept)]]))

    return Trace(sizes, finished(rng, stacks(), jobs, 8.0))


def long_tail(seed: int, jobs: int) -> Trace:
    """Many users of one server: nearly every job names other LoRAs of a huge library."""
    rng = random.Random(seed)
    sizes = library(rng, 7000)
    names = list(sizes)
    weights = [1 / (i + 20) ** 0.6 for i in range(len(names))]

    def stacks() -> Iterator[tuple[str, ...]]:
        while True:
            yield tuple(dict.fromkeys(rng.choices(names, weights, k=rng.choice((1, 1, 2, 3)))))

    return Trace(sizes, finished(rng, stacks(), jobs, 4.0))


def thrash(seed: int, jobs: int) -> Trace:
    """Twice as many LoRAs of 500 MB, all equally likely, as a budget of 6 GB holds."""
    rng = random.Random(seed)
    sizes = {f"lora{i:04d}.safetensors": 500_000_000 for i in range(24)}
    stacks = iter(lambda: (rng.choice(list(sizes)),), ())
    return Trace(sizes, finished(rng, stacks, jobs, 4.0))


def session(seed: int, jobs: int) -> Trace:
    """One person who queues a job only when the last has ended: a queue that shows nothing. Projects of a few LoRAs
    each come back again and again, and now and then the host frees all memory.
    """
    rng = random.Random(seed)
    sizes = library(rng, 300)
    projects = [rng.sample(list(sizes), rng.randint(3, 6)) for _ in range(8)]
    made: list[TraceJob] = []
    project = projects[0]
    for i in range(jobs):
        freed = rng.random() < 0.08
        if rng.random() < 0.05:
            project = projects[min(int(rng.expovariate(0.6)), len(projects) - 1)]
        stack = [project[0], *rng.sample(project[1:], rng.randint(0, 2))]
        made.append(TraceJob(i, tuple(stack), rng.uniform(6, 10), after_s=rng.uniform(5, 60), freed=freed))
    return Trace(sizes, made)


def chance(seed: int, jobs: int) -> Trace:
    """The same person without habits: every job names LoRAs drawn from the whole library."""
    rng = random.Random(seed)
    made = session(seed, jobs)
    names = list(made.sizes)
    return Trace(made.sizes, [job._replace(loras=tuple(rng.sample(names, len(job.loras)))) for job in made.jobs])


def enqueue(queue: list[TraceJob], job: TraceJob) -> None:
    queue.insert(0 if job.front else len(queue), job)


def take_out_cancelled(queue: list[TraceJob]) -> None:
    for place, job in enumerate(list(queue)):
        if job.cancel_at is not None and place <= job.cancel_at * DEPTH:
            queue.remove(job)


def run_order(trace: Trace) -> list[TraceJob]:
    """The jobs that run, in the order in which they do: that depends on nobody's cache."""
    coming, queue, order = deque(trace.jobs), list[TraceJob](), list[TraceJob]()
    while coming or queue:
        if queue:
            order.append(queue.pop(0))
        while coming and len(queue) < DEPTH and (coming[0].after_s is None or not queue):
            enqueue(queue, coming.popleft())
        take_out_cancelled(queue)
    return order


def library(rng: random.Random, count: int) -> dict[str, int]:
    """Names and sizes: lognormal, most between 50 and 450 MB."""
    return {f"lora{i:04d}.safetensors": int(MEDIAN_BYTES * math.exp(rng.gauss(0, 0.7))) for i in range(count)}


def finished(
    rng: random.Random, stacks: Iterator[tuple[str, ...]], count: int, run_s: float, *, front: float = FRONT
) -> list[TraceJob]:
    """Stacks as jobs: times vary by a fifth, some are cancelled, a few jump the queue."""
    jobs = []
    for i in range(count):
        cancel_at = rng.random() if rng.random() < CANCELLED else None
        jobs.append(TraceJob(i, next(stacks), run_s * rng.uniform(0.8, 1.2), cancel_at, rng.random() < front))
    return jobs


def write(path: Path, trace: Trace) -> None:
    lines = [json.dumps({"sizes": trace.sizes}), *(json.dumps(job._asdict()) for job in trace.jobs)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read(path: Path) -> Trace:
    first, *rest = path.read_text("utf-8").splitlines()
    jobs = [TraceJob(**{**json.loads(line), "loras": tuple(json.loads(line)["loras"])}) for line in rest]
    return Trace(json.loads(first)["sizes"], jobs)


def _workstation_stacks(rng: random.Random, names: list[str]) -> Iterator[tuple[str, ...]]:
    weights = [1 / (i + 3) for i in range(len(names))]
    while True:
        stack = list(dict.fromkeys(rng.choices(names, weights, k=rng.choice((1, 2, 3, 3, 4)))))
        if rng.random() < 0.3:
            for swept in rng.sample(names, rng.randint(6, 20)):
                yield tuple(dict.fromkeys([*stack[:1], swept]))
            continue
        for _ in range(rng.randint(2, 12)):
            yield tuple(stack)
            if rng.random() < 0.4:
                stack[rng.randrange(len(stack))] = rng.choices(names, weights)[0]
                stack = list(dict.fromkeys(stack))
