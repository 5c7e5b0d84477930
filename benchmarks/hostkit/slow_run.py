"""A queued batch on a real ComfyUI whose LoRAs lie on a slow disk, in every mode of prefetching."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .client import HostClient
from .graphs import flux_graph
from .models import lora_path
from .queue_run import Batch, drop_pages, read_through, require_success
from .server import HostInstall, HostServer

MAX_HISTORY_JOBS = 50
"""The pack remembers no more jobs than that."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run the batch; `environment` are the pack's settings."""

    math: str = "exact"
    environment: Mapping[str, str] = field(default_factory=dict)
    is_warm: bool = False
    """Every file is in the page cache from the beginning."""


def modes(batch: Batch) -> dict[str, Mode]:
    """`small budget` holds one adapter of the two that every job needs. `off, pages warm` is what is left to wait for
    when the disk costs nothing."""
    off = {"WARMSTACK_PREFETCH": "off"}
    return {
        "off": Mode(environment=off),
        "off, pages warm": Mode(environment=off, is_warm=True),
        "on": Mode(),
        "pages only": Mode(environment={"WARMSTACK_RESIDENT_TIER": "off"}),
        "small budget": Mode(environment={"WARMSTACK_BUDGET": str(batch.lora_bytes * 3 // 2)}),
        "fused, off": Mode("fused", off),
        "fused, on": Mode("fused"),
    }


@dataclass(frozen=True, slots=True)
class ModeRun:
    """How the batch went in one mode; the waits are those of each job's demands together, first job left out."""

    digests: tuple[str, ...]
    waits_s: tuple[float, ...]
    run_s: tuple[float, ...]
    peak_share: float
    """The most bytes ever reserved, of the budget."""

    @property
    def wait_s(self) -> float:
        return sum(self.waits_s)

    def summary(self, cold: ModeRun) -> dict[str, Any]:
        """`cold`: the same batch with every file read on demand."""
        return {
            "hidden_share": 1 - self.wait_s / cold.wait_s,
            "wait_p50_ms": 1000 * statistics.median(self.waits_s),
            "wait_p99_ms": 1000 * percentile(self.waits_s, 0.99),
            "median_job_ms": 1000 * statistics.median(self.run_s),
            "peak_of_budget": self.peak_share,
            "images_identical": self.digests == cold.digests,
            "waits_ms": [round(1000 * wait_s, 2) for wait_s in self.waits_s],
        }


def run_mode(install: HostInstall, base: Path, batch: Batch, mode: Mode, bytes_per_s: int) -> ModeRun:
    """Queue the batch at once on a fresh server. Each job has a cold LoRA of its own beside that of the job before."""
    shutil.copy(Path(__file__).with_name("slow_disk.py"), base / "custom_nodes" / "hostkit_slow_disk.py")
    assert batch.jobs <= MAX_HISTORY_JOBS
    with HostServer(install, base, environment=mode.environment) as server:
        client = server.client
        slow = {"slow": {"class_type": "TestSlowDisk", "inputs": {"bytes_per_s": bytes_per_s}}}
        # The model's own first load is not what is compared.
        require_success(client.run(slow, flux_graph(hold_s=0.0)))
        for name in batch.names:
            (read_through if mode.is_warm else drop_pages)(lora_path(base, name))
        ids = [client.queue(prompt) for prompt in stacked_prompts(batch, mode.math)]
        finished = client.wait(ids, 60 + batch.jobs * (batch.hold_s + 10))
        waits, budget = recorded_waits(client, ids)
    require_success(finished)
    return ModeRun(
        tuple(job.output("digest")[0] for job in finished),
        tuple(waits[1:]),
        tuple(job.run_s - batch.hold_s for job in finished[1:]),
        budget["peak_bytes"] / budget["limit_bytes"],
    )


def recorded_waits(client: HostClient, ids: Sequence[str]) -> tuple[list[float], dict[str, Any]]:
    """Seconds that each job's demands were blocked, and the budget. The last job is recorded a moment after its end."""
    deadline_s = time.monotonic() + 30
    while True:
        status = client.get("/warmstack/v1/status")
        waits = {job["job_id"]: job["wait_s"] for job in status["history"]}
        if waits.keys() >= set(ids):
            return [waits[job_id] for job_id in ids], status["budget"]
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{set(ids) - waits.keys()} ended and left no record")
        time.sleep(0.1)


def stacked_prompts(batch: Batch, math: str) -> list[Any]:
    names = batch.names
    stacks = [(name, *earlier) for name, earlier in zip(names, [(), *((name,) for name in names)], strict=False)]
    return [
        flux_graph(
            [(name, 0.8 / (place + 1), 0.0) for place, name in enumerate(stack)],
            loader="stack",
            math=math,
            hold_s=batch.hold_s,
            tag=stack[0],
        )
        for stack in stacks
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank: for fewer than a hundred values, the 99th is the largest."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
