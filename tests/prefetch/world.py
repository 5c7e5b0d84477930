"""A small world for the prefetcher: real files, catalog and cache; queue, page cache, memory and clock to steer."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from warmstack.loaders.system.disk_kind import Disk
from warmstack.loaders.system.page_cache import warm_file
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import load_adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.loading import LoadAdapter
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.file import AdapterKey
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.pool import Pool
from warmstack.prefetch.prefetcher import Prefetcher
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.settings import PrefetchSettings

CHUNK_BYTES = 1024
MIB = 1 << 20


Cancelled = Callable[[], bool]


class InlinePool:
    """Runs a call where it is submitted: nothing is left to the scheduler."""

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        run(call, future)
        return future

    def close(self) -> None:
        pass

    def join(self, timeout_s: float) -> bool:
        return True


class ManualPool(InlinePool):
    """Runs a call when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((call, future))
        return future

    def close(self) -> None:
        """A closed pool still runs what it has taken."""
        while self.waiting:
            self.run_next()

    def run_next(self) -> None:
        run(*self.waiting.popleft())

    def pass_chunk(self, limiter: RateLimit | None, nbytes: int, cancelled: Cancelled | None) -> None:
        """Every read comes by here before each of its chunks."""
        if limiter is not None:
            limiter.spend(nbytes, cancelled)


def run(call: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)


class World:
    """`prefetcher` is built on first use; `settle` lets it come to rest."""

    def __init__(
        self,
        root: Path,
        *,
        budget_bytes: int = 64 * MIB,
        load: LoadAdapter = load_adapter,
        reads: ManualPool | None = None,
        state_folder: Path | None = None,
        **settings: Any,
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.catalog = LoraCatalog(lambda: [str(root)])
        self.budget = ByteBudget(budget_bytes)
        self.cache = AdapterCache(self.budget, load=load, clock=lambda: self.now_s)
        self.written: dict[AdapterKey, bytes] = {}
        """The bytes of every file that was ever there."""
        self.queue: list[QueuedJob] = []
        self.now_s = 1000.0
        self.available_bytes = 1 << 40
        self.budget_bytes = budget_bytes
        self.page_cache: dict[str, int] = {}
        self.page_reads: list[str] = []
        self.on_chunk: Callable[[str, int], None] = lambda path, done: None
        """Called before each chunk of a page read, in the thread that reads."""
        self.disk_under: Callable[[str], Disk] = lambda path: Disk("8:0", "rotating")
        self.probe: Callable[[Sequence[str], Callable[[], bool]], tuple[float, ...]] = lambda paths, cancelled: ()
        self.job_read_bytes: int | None = 0
        self.progress: float | None = None
        self.reads = reads or ManualPool()
        self.settings = PrefetchSettings(**{"headroom_bytes": 1 << 20, **settings})
        self.machine = Machine(
            warm_file=self._warm_file,
            resident_bytes=lambda path: self.page_cache.get(path, 0),
            available_bytes=lambda: self.available_bytes,
            clock=lambda: self.now_s,
            make_pool=self._make_pool,
            disk_under=lambda path: self.disk_under(path),
            probe=lambda paths, cancelled: self.probe(paths, cancelled),
            foreign_read_bytes=lambda: self.job_read_bytes,
            progress=lambda: self.progress,
            state_folder=state_folder,
        )
        self.prefetcher: Prefetcher = self.build()
        self.task: asyncio.Task[None] | None = None

    def build(self, **changes: Any) -> Prefetcher:
        self.prefetcher = Prefetcher(
            **{
                "jobs": lambda: list(self.queue),
                "catalog": self.catalog,
                "cache": self.cache,
                "settings": self.settings,
                "machine": self.machine,
                **changes,
            }
        )
        return self.prefetcher

    def lora(self, name: str, size_bytes: int = 4 * CHUNK_BYTES, *, tags: str = "") -> str:
        """Writes a LoRA of about that size, with content of its own; its catalog name. `tags` tell its category."""
        width = max(1, size_bytes // 4)
        tensors = {"lora_unet_x.lora_up.weight": (1, 1), "lora_unet_x.lora_down.weight": (1, width)}
        header: dict[str, Any] = {"__metadata__": {"modelspec.tags": tags}} if tags else {}
        offset = 0
        for key, shape in tensors.items():
            end = offset + 4 * shape[0] * shape[1]
            header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return self.write(f"{name}.safetensors", len(text).to_bytes(8, "little") + text + os.urandom(offset))

    def write(self, name: str, content: bytes) -> str:
        """Puts a file in its place in one step, as the host's own downloads do: who has the old one open keeps it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.part")
        fresh.write_bytes(content)
        # Two writes may fall into one tick of the file system's clock.
        mtime_ns = 1_700_000_000_000_000_000 + len(self.written) * 1_000_000_000
        os.utime(fresh, ns=(mtime_ns, mtime_ns))
        fresh.replace(path)
        self.written[AdapterKey(str(path), len(content), mtime_ns)] = content
        return name

    def submit(self, job_id: str, *names: str, resident: bool = False, front: bool = False) -> None:
        job = QueuedJob(job_id, stock_graph(*names) if not resident else our_graph(*names))
        self.queue.insert(sum(job.running for job in self.queue) if front else len(self.queue), job)

    def start(self, job_id: str) -> None:
        """The job runs: it becomes the first."""
        job = next(job for job in self.queue if job.job_id == job_id)
        self.queue.remove(job)
        self.queue.insert(0, QueuedJob(job.job_id, job.payload, running=True))

    def remove(self, job_id: str) -> None:
        self.queue[:] = [job for job in self.queue if job.job_id != job_id]

    async def settle(self, *, reads: bool = True) -> None:
        """Until nothing more happens by itself. `reads`: also everything that is to be read."""
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self.prefetcher.run())
        while True:
            self.prefetcher.wake()
            for _ in range(60):
                await asyncio.sleep(0)
            if not (reads and self.reads.waiting):
                return
            self.reads.run_next()

    async def close(self) -> None:
        self.prefetcher.close()
        if self.task is not None:
            await self.task

    async def restart(self) -> None:
        """The same queue and disks in a new process: nothing is in memory any more."""
        await self.close()
        self.cache.clear()
        self.page_cache.clear()
        self.page_reads.clear()
        self.task = None
        self.build()

    def states(self) -> dict[str, dict[str, str]]:
        """job -> adapter -> state, as a status shows them."""
        return {job.job_id: {a.name: a.state for a in job.adapters} for job in self.prefetcher.status().queue}

    def path(self, name: str) -> str:
        return str(self.root / name)

    def _make_pool(self, size: int, name: str) -> Pool:
        return InlinePool() if name.endswith("chore") else self.reads

    def _warm_file(
        self, path: str | os.PathLike[str], *, cancelled: Callable[[], bool], limiter: RateLimit | None = None
    ) -> int:
        path = os.fspath(path)
        self.page_reads.append(path)
        chunks = Chunks(self.reads, limiter, lambda done_bytes: self._pass_chunk(path, done_bytes))
        done_bytes = warm_file(path, cancelled=cancelled, chunk_bytes=CHUNK_BYTES, limiter=chunks)
        self.page_cache[path] = done_bytes
        return done_bytes

    def _pass_chunk(self, path: str, done_bytes: int) -> None:
        self.page_cache[path] = done_bytes
        self.on_chunk(path, done_bytes)


class Chunks(RateLimit):
    """Tells of every chunk before it is read, once the limit that holds has let it pass."""

    def __init__(self, reads: ManualPool, limiter: RateLimit | None, passing: Callable[[int], None]) -> None:
        super().__init__(math.inf)
        self._reads = reads
        self._limiter = limiter
        self._passing = passing
        self._done_bytes = 0

    def spend(self, nbytes: int, cancelled: Cancelled | None = None) -> None:
        self._reads.pass_chunk(self._limiter, nbytes, cancelled)
        self._passing(self._done_bytes)
        self._done_bytes += nbytes


def stock_graph(*names: str) -> dict[str, Any]:
    """A chain of the host's own loaders."""
    return {
        str(i): {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"lora_name": name, "strength_model": 1.0, "model": [str(i - 1), 0]},
        }
        for i, name in enumerate(names)
    }


def our_graph(*names: str) -> dict[str, Any]:
    return {"1": {"class_type": "WarmStackLoadLoraStack", "inputs": {"loras": json.dumps(list(names))}}}
