"""One queued batch in a real ComfyUI with cold (or warm) LoRA files, timed by the host's own clock."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import Finished, Prompt
from .graphs import flux_graph
from .models import lora_path, write_models
from .server import HostInstall, HostServer, make_base_directory
from .tiny_lora import flux_rank_for, write_flux_lora


@dataclass(frozen=True, slots=True)
class Batch:
    """`jobs` prompts, each with its own LoRA of `lora_bytes`; `hold_s` stands for the time that a GPU would work."""

    jobs: int
    lora_bytes: int
    hold_s: float

    @property
    def names(self) -> list[str]:
        return [f"batch/lora{index:02d}.safetensors" for index in range(self.jobs)]

    def prompts(self, loader: str) -> list[Prompt]:
        return [flux_graph([(name, 0.8, 0.0)], loader=loader, math="exact", hold_s=self.hold_s) for name in self.names]


@dataclass(frozen=True, slots=True)
class BatchRun:
    """How one batch went. Times without the hold; the first job, which nothing can be read ahead for, is left out."""

    digests: tuple[str, ...]
    first_s: float
    rest_s: tuple[float, ...]
    after_first: dict[str, Any]
    """The pack's own figures when the first job was done ..."""
    status: dict[str, Any]
    """... and when all were."""
    log: str

    @property
    def busy_s(self) -> float:
        return sum(self.rest_s)

    @property
    def own_hidden_share(self) -> float | None:
        """Of the adapters that our nodes acquired after the first job: the share of their cold reads that nobody
        waited for."""
        wait_s, load_s = (self._since_first(name) for name in ("wait_s", "load_s"))
        return 1 - wait_s / load_s if load_s else None

    @property
    def own_page_share(self) -> float | None:
        """Of the bytes that stock loaders read after the first job: the share that was in the page cache in time."""
        hit, demanded = (self._since_first(name, "page") for name in ("hit_bytes", "demand_bytes"))
        return hit / demanded if demanded else None

    def _since_first(self, name: str, part: str = "") -> float:
        before, after = self.after_first["prefetch"], self.status["prefetch"]
        return float((after[part] if part else after)[name] - (before[part] if part else before)[name])

    @property
    def median_s(self) -> float:
        return statistics.median(self.rest_s)


def prepare(base: Path, batch: Batch) -> Path:
    """A base directory with the models and the batch's files."""
    make_base_directory(base)
    write_models(base, sd15=False)
    rank = flux_rank_for(batch.lora_bytes)
    for seed, name in enumerate(batch.names):
        write_flux_lora(lora_path(base, name), seed=100 + seed, rank=rank, dtype="float32")
    return base


def hold_for(base: Path, batch: Batch, times_the_load: float) -> float:
    """Seconds that make a job `times_the_load` as long as reading one of its files cold takes here and now."""
    reads_s = []
    for name in batch.names[:3]:
        path = lora_path(base, name)
        drop_pages(path)
        started = time.perf_counter()
        read_through(path)
        reads_s.append(time.perf_counter() - started)
    return times_the_load * max(reads_s)


def run_batch(
    install: HostInstall, base: Path, batch: Batch, loader: str, *, prefetch: bool, warm: bool = False
) -> BatchRun:
    """Queue the whole batch at once on a fresh server and wait for it. `loader`: "stock" or "stack"; `warm` fills
    the page
    cache first instead of emptying it."""
    files = [lora_path(base, name) for name in batch.names]
    settings = {"WARMSTACK_PREFETCH": "on" if prefetch else "off"}
    with HostServer(install, base, environment=settings) as server:
        # The model's own first load is not what is compared.
        server.client.run(flux_graph(hold_s=0.0))
        for path in files:
            read_through(path) if warm else drop_pages(path)
        ids = [server.client.queue(prompt) for prompt in batch.prompts(loader)]
        timeout_s = 60 + batch.jobs * (batch.hold_s + 5)
        server.client.wait(ids[:1], timeout_s)
        after_first = server.client.get("/warmstack/v1/status")
        finished = server.client.wait(ids, timeout_s)
        status = server.client.get("/warmstack/v1/status")
    require_success(finished)
    times = [job.run_s - batch.hold_s for job in finished]
    digests = tuple(job.output("digest")[0] for job in finished)
    return BatchRun(digests, times[0], tuple(times[1:]), after_first, status, server.log)


def require_success(finished: Sequence[Finished]) -> None:
    failed = [job.messages[-1] for job in finished if job.status != "success"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(finished)} jobs failed: {failed[0]}")


def drop_pages(path: Path) -> None:
    """Out of the page cache: the next reader goes to the disk."""
    with path.open("rb") as file:
        os.fdatasync(file.fileno())  # dirty pages survive DONTNEED
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        scratch = bytearray(8 << 20)
        while file.readinto(scratch):
            pass


def hidden_share(off: float, on: float, floor: float) -> float | None:
    """Share of the load time (`off - floor`) that prefetching took away; None when there was nothing to hide."""
    return (off - on) / (off - floor) if off > floor else None
