"""What the prefetcher costs the event loop: a queue of 1,000 jobs of 60 nodes, drained job by job.

    python benchmarks/bookkeeping.py [--jobs 1000] [--repeats 3] [--all-cores] [--out bookkeeping.json]

`job_ms` is all that a job costs, its start and end as well; `plan_1000_jobs_s` is reading, resolving and planning
alone: the same queue submitted at once, each of its jobs coming into sight as the first one is taken out.

Times are CPU time of the loop's thread, so that a busy machine counts less; the wall time of the longest stretch stands
beside it. The process stays on one core, readers and all: on an idle machine the system moves a thread that sleeps
thousands of times a second to and fro, and cold caches cost up to a quarter more (`--all-cores` shows it). Each figure
is the least of the repeats: what is ours comes back every time, what the machine adds does not.
Bars: under 1 ms per job, never more than 5 ms at a stretch, and 1,000 jobs planned in under a second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from written import write_report

from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.prefetch.prefetcher import Prefetcher
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.references import references

NODES = 60
FILES = 300
RESIDENT = 40
"""Adapters that the budget holds, as 8 GiB do of SDXL LoRAs."""
FILE_BYTES = 92
BAR_JOB_MS = 1.0
BAR_STRETCH_MS = 5.0
BAR_PLAN_S = 1.0

Graph = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--all-cores", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not options.all_cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        names = write_library(Path(folder))
        graphs = [graph(random.Random(seed), names) for seed in range(options.jobs)]
        report = {
            "jobs": options.jobs,
            "cores": 1 if not options.all_cores else os.cpu_count(),
            "nodes_per_job": NODES,
            "references_ms": spread([timed(partial(references, g, ["0"])) for g in graphs]),
            f"plan_{options.jobs}_jobs_s": min(plan_s(Path(folder), graphs) for _ in range(options.repeats)),
            **best([drain(Path(folder), graphs) for _ in range(options.repeats)]),
        }
    report["passed"] = (
        report["references_ms"]["median"] < BAR_JOB_MS
        and report["job_ms"]["mean"] < BAR_JOB_MS
        and report["longest_stretch_ms"]["cpu"] < BAR_STRETCH_MS
        and report[f"plan_{options.jobs}_jobs_s"] < BAR_PLAN_S
    )
    write_report(report, options.out)
    return 0 if report["passed"] else 1


def plan_s(folder: Path, graphs: list[Graph]) -> float:
    """Submits everything at once and takes the jobs out one after the other; none of them starts."""
    run = Run(folder, graphs)
    with run:
        while run.queue:
            del run.queue[0]
            run.look()
    return round(run.stretches.total_ms / 1000, 3)


def drain(folder: Path, graphs: list[Graph]) -> dict[str, Any]:
    """Submits everything at once and runs the jobs one after the other, as fast as the prefetcher takes them in."""
    run = Run(folder, graphs)
    per_job = []
    with run:
        while run.queue:
            before_ms = run.stretches.total_ms
            run.queue[0] = QueuedJob(run.queue[0].job_id, run.queue[0].payload, running=True)
            run.look()
            del run.queue[0]
            run.look()
            per_job.append(run.stretches.total_ms - before_ms)
    page = run.prefetcher.status().page
    return {
        "job_ms": {"mean": round(run.stretches.total_ms / len(graphs), 4), **spread(per_job)},
        "longest_stretch_ms": {"cpu": round(run.stretches.cpu_ms, 3), "wall": round(run.stretches.wall_ms, 3)},
        "page_demands": page.hits + page.joins + page.misses,
    }


class Run:
    """A prefetcher over a queue; its loop has a thread of its own, so that all it runs is the prefetcher's."""

    def __init__(self, folder: Path, graphs: list[Graph]) -> None:
        self.queue = [QueuedJob(str(i), (g, ["0"])) for i, g in enumerate(graphs)]
        self.stretches = Stretches()
        self.prefetcher = Prefetcher(
            jobs=lambda: tuple(self.queue),
            catalog=LoraCatalog(lambda: [str(folder)]),
            cache=AdapterCache(ByteBudget(RESIDENT * FILE_BYTES)),
        )
        self._loop = threading.Thread(target=lambda: asyncio.run(self.prefetcher.run()))

    def __enter__(self) -> None:
        # The queue itself is the host's: collecting its garbage is not what is measured.
        gc.collect()
        gc.freeze()
        self.stretches.__enter__()
        self._loop.start()
        self.look()

    def __exit__(self, *_: object) -> None:
        self.prefetcher.close()
        self._loop.join()
        self.stretches.__exit__()

    def look(self) -> None:
        """Wakes the prefetcher and waits until it shows the queue as it is now."""
        self.prefetcher.wake()
        first = [(job.job_id, job.running) for job in self.queue[:1]]
        while first != [(needs.job.job_id, needs.job.running) for needs in self.prefetcher._shown[0].jobs[:1]]:
            time.sleep(0.0005)


def best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The least of every figure, nested ones too."""
    first = runs[0]
    return {
        key: best([run[key] for run in runs]) if isinstance(first[key], dict) else min(run[key] for run in runs)
        for key in first
    }


class Stretches:
    """Times every callback that an event loop runs."""

    def __init__(self) -> None:
        self.cpu_ms = self.wall_ms = self.total_ms = 0.0
        self._run: Callable[[asyncio.Handle], None] = asyncio.Handle._run

    def __enter__(self) -> Stretches:
        run = self._run

        def measured(handle: asyncio.Handle) -> None:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            run(handle)
            cpu_ms = (time.thread_time() - cpu_s) * 1e3
            self.total_ms += cpu_ms
            self.cpu_ms = max(self.cpu_ms, cpu_ms)
            self.wall_ms = max(self.wall_ms, (time.perf_counter() - wall_s) * 1e3)

        asyncio.Handle._run = measured  # only here is every callback seen
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._run


def graph(rng: random.Random, names: list[str]) -> Graph:
    """A big workflow as people queue it: six LoRAs in three kinds of loaders, the host's nodes, an unknown pack."""
    nodes: Graph = {"0": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}}}

    def chain(class_type: str, **inputs: Any) -> None:
        nodes[str(len(nodes))] = {"class_type": class_type, "inputs": {**inputs, "model": [str(len(nodes) + 1), 0]}}

    for _ in range(2):
        chain("LoraLoader", lora_name=rng.choice(names), strength_model=0.8, strength_clip=0.8, clip=["59", 1])
    rows = {f"lora_{i}": {"on": i % 2 == 0, "lora": rng.choice(names), "strength": 1} for i in range(4)}
    chain("Power Lora Loader (rgthree)", **rows)
    chain("WarmStackLoadLoraStack", loras=json.dumps([rng.choice(names), rng.choice(names)]), math="fused")
    chain("FaceDetailer", wildcard="a face, detailed, photo " * 20, guide_size=512, seed=1, steps=20, cfg=7.0)
    while len(nodes) < NODES - 1:
        chain("CLIPTextEncode", text="masterpiece, best quality, a long prompt about something " * 10)
        chain("KSampler", seed=rng.getrandbits(60), steps=20, cfg=7.0, sampler_name="euler", scheduler="normal")
        chain("SomePackNode", text="free text " * 30, mode="auto", strength=0.5, enabled=True, options={"a": [1, 2]})
    nodes[str(NODES - 1)] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}}
    return nodes


def write_library(folder: Path) -> list[str]:
    header = b'{"lora_unet_x.lora_up.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}'
    names = [f"style_{i:03d}.safetensors" for i in range(FILES)]
    for name in names:
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return names


def timed(call: Callable[[], object]) -> float:
    started_s = time.thread_time()
    call()
    return (time.thread_time() - started_s) * 1e3


def spread(values_ms: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values_ms), 4), "max": round(max(values_ms), 4)}


if __name__ == "__main__":
    sys.exit(main())
