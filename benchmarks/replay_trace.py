"""Traces for replay.py: which LoRAs queued jobs name, in which order, who is cancelled and who jumps the queue.

A trace is a file of JSON lines. The first describes the library: `{"sizes": {name: bytes}}`. Every other line is a job
in order of submission: `{"id": 7, "loras": [names], "run_s": 8.1, "cancel_at": 0.4 | null, "front": false}`, where
`cancel_at` is the share of the queue that is still before the job when it is taken out. The queue is kept `DEPTH` deep.
"""

from __future__ import annotations

import json
import math
import random
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


class Trace(NamedTuple):
    sizes: dict[str, int]
    jobs: list[TraceJob]


def workstation(seed: int, jobs: int, run_s: float = 8.0) -> Trace:
    """One person: a stack is varied for a while, now and then a sweep over many LoRAs, favourites come back."""
    rng = random.Random(seed)
    sizes = library(rng, 300)
    return Trace(sizes, finished(rng, _workstation_stacks(rng, list(sizes)), jobs, run_s))


def long_tail(seed: int, jobs: int, run_s: float = 4.0) -> Trace:
    """Many users of one server: nearly every job names other LoRAs of a huge library."""
    rng = random.Random(seed)
    sizes = library(rng, 7000)
    names = list(sizes)
    weights = [1 / (i + 20) ** 0.6 for i in range(len(names))]

    def stacks() -> Iterator[tuple[str, ...]]:
        while True:
            yield tuple(dict.fromkeys(rng.choices(names, weights, k=rng.choice((1, 1, 2, 3)))))

    return Trace(sizes, finished(rng, stacks(), jobs, run_s))


def library(rng: random.Random, count: int) -> dict[str, int]:
    """Names and sizes: lognormal, most between 50 and 450 MB."""
    return {f"lora{i:04d}.safetensors": int(MEDIAN_BYTES * math.exp(rng.gauss(0, 0.7))) for i in range(count)}


def finished(rng: random.Random, stacks: Iterator[tuple[str, ...]], count: int, run_s: float) -> list[TraceJob]:
    """Stacks as jobs: times vary by a fifth, some are cancelled, a few jump the queue."""
    jobs = []
    for i in range(count):
        cancel_at = rng.random() if rng.random() < CANCELLED else None
        jobs.append(TraceJob(i, next(stacks), run_s * rng.uniform(0.8, 1.2), cancel_at, rng.random() < FRONT))
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
