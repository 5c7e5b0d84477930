"""run_batch: a queue of requests through one pipeline, each request's LoRAs loading while its predecessor runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from ..loaders.cancelling import Cancelled, never
from ..loaders.in_thread import as_here
from ..lora.errors import LoraError
from ..prefetch.machine import Machine
from ..prefetch.prefetcher import Prefetcher
from ..prefetch.queue.job import QueuedJob, References
from ..prefetch.references.texts import stack_references
from ..prefetch.settings import PrefetchSettings
from .application import Application
from .errors import StackError
from .lora_pipeline import LoraPipeline
from .lora_worker import LoRAWorker
from .report import RequestReport, RunReport
from .request import MalformedLine, QueueLine, QueueRequest

logger = logging.getLogger(__name__)

Mode = Literal["on-demand", "prefetch"]

_SIGNALS_S = 0.25
"""How often the waiting main thread looks for Ctrl-C: a signal that another thread was given does not wake it."""

_NO_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED")


class Image(Protocol):
    """A PIL image, as far as it matters here."""

    def save(self, fp: Path) -> None: ...

    def tobytes(self) -> bytes: ...


class Generate(Protocol):
    """Makes one picture with the pipeline as it is."""

    def __call__(self, pipeline: LoraPipeline, request: QueueRequest) -> Image: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What to run and where its pictures go."""

    lines: Sequence[QueueLine]
    pipeline: LoraPipeline
    generate: Generate
    images: Path
    """Folder of the pictures; made when missing."""
    settings: PrefetchSettings = field(default_factory=PrefetchSettings)

    @property
    def requests(self) -> tuple[QueueRequest, ...]:
        return tuple(line for line in self.lines if isinstance(line, QueueRequest))


def run_batch(
    worker: LoRAWorker,
    batch: Batch,
    mode: Mode,
    on_report: Callable[[RequestReport], None] | None = None,
    stopped: Cancelled = never,
) -> RunReport:
    """Runs every request in order; the pipeline has its own weights afterwards.

    A request that fails (a missing name, a LoRA for another model) is reported and the queue goes on. `on_report` is
    called as each request ends, in a thread of the run, where torch is set as here (inference mode, gradients,
    autocast, GPU). Once `stopped()` is true no other request is begun. Blocking; owns an event loop.
    """
    batch.images.mkdir(parents=True, exist_ok=True)
    run = _Run(worker, batch, on_report or _ignore, stopped)
    started_s = time.perf_counter()
    try:
        reports = asyncio.run(run.prefetched() if mode == "prefetch" else run.on_demand())
    finally:
        worker.remove_from_pipeline(batch.pipeline)
    malformed = [_malformed_report(line) for line in batch.lines if isinstance(line, MalformedLine)]
    return RunReport(
        mode=mode,
        requests=tuple(sorted([*reports, *malformed], key=lambda report: report.line)),
        seconds=time.perf_counter() - started_s,
        cache=worker.cache.snapshot(),
        device=worker.status().device,
    )


class _Run:
    """One pass over the queue. `jobs` is what the prefetcher sees of it."""

    def __init__(
        self,
        worker: LoRAWorker,
        batch: Batch,
        on_report: Callable[[RequestReport], None],
        stopped: Cancelled,
    ) -> None:
        self._worker = worker
        self._batch = batch
        self._on_report = on_report
        self._stopped = stopped
        self._waiting = [QueuedJob(request.id, request) for request in batch.requests]
        self._jobs = self._waiting
        """Those that are left, the one under way first."""

    def jobs(self) -> list[QueuedJob]:
        return self._jobs

    async def on_demand(self) -> list[RequestReport]:
        return [await self._run(request) for request in self._batch.requests]

    async def prefetched(self) -> list[RequestReport]:
        index_path = self._worker.config.index_path
        prefetcher = Prefetcher(
            jobs=self.jobs,
            references=_references,
            catalog=self._worker.catalog,
            cache=self._worker.cache,
            settings=self._batch.settings,
            machine=Machine(state_folder=index_path and index_path.parent),
            shelf=self._worker.shelf,
            shelf_refusal=self._worker.status().device_problem,
        )
        warming = asyncio.create_task(prefetcher.run())
        try:
            reports = []
            for position, request in enumerate(self._batch.requests):
                under_way = QueuedJob(request.id, request, running=True)
                self._jobs = [under_way, *self._waiting[position + 1 :]]
                prefetcher.wake()
                reports.append(await self._run(request))
            return reports
        finally:
            prefetcher.close()
            await _end(warming)

    async def _run(self, request: QueueRequest) -> RequestReport:
        if self._stopped():
            return RequestReport(id=request.id, line=request.line, prompt=request.prompt, ran=False)
        work = asyncio.create_task(asyncio.to_thread(as_here(self._request), request))
        while not work.done():
            await asyncio.wait({work}, timeout=_SIGNALS_S)
        return work.result()

    def _request(self, request: QueueRequest) -> RequestReport:
        report = self._made(request)
        self._on_report(report)
        return report

    def _made(self, request: QueueRequest) -> RequestReport:
        started_s = time.perf_counter()
        image_path = self._batch.images / request.image
        try:
            application, image = self._picture(request)
            _save(image, image_path)
        except LoraError as problem:
            return self._report(request, started_s, Application(), problems=_lines(problem))
        # What a pipeline raises is not for us to foresee (TypeError: it takes no negative prompt; ImportError: its
        # tokenizer lacks a package): one request pays, and what the others made is reported. A request to stop is none
        # of these.
        except Exception as problem:
            logger.warning("request %s failed", request.id, exc_info=problem)
            return self._report(request, started_s, Application(), problems=_lines(problem), expected=False)
        return self._report(request, started_s, application, image=image_path.name)

    def _picture(self, request: QueueRequest) -> tuple[Application, Image]:
        """Adapters kept on the device give way to the picture."""
        try:
            return self._paint(request)
        except RuntimeError as problem:
            if not (_lacks_memory(problem) and self._worker.yield_device_memory()):
                raise
        torch.cuda.empty_cache()
        return self._paint(request)

    def _paint(self, request: QueueRequest) -> tuple[Application, Image]:
        application = self._worker.apply_to_pipeline(self._batch.pipeline, request.stack)
        return application, self._batch.generate(self._batch.pipeline, request)

    def _report(
        self,
        request: QueueRequest,
        started_s: float,
        application: Application,
        *,
        image: str = "",
        problems: tuple[str, ...] = (),
        expected: bool = True,
    ) -> RequestReport:
        return RequestReport(
            id=request.id,
            line=request.line,
            prompt=request.prompt,
            image=image,
            loras=application.loras,
            seconds=time.perf_counter() - started_s,
            apply_s=application.apply_s,
            problems=problems,
            expected=expected,
        )


def _lacks_memory(problem: RuntimeError) -> bool:
    """The allocator's error has a class of its own; those of the driver, cuBLAS and cuDNN tell by their text."""
    return isinstance(problem, torch.cuda.OutOfMemoryError) or any(mark in str(problem) for mark in _NO_MEMORY)


async def _end(warming: asyncio.Task[None]) -> None:
    """A prefetcher that broke made the run slower, not wrong."""
    await asyncio.wait({warming})
    problem = None if warming.cancelled() else warming.exception()
    if problem is not None:
        logger.warning("the prefetcher stopped: %s", problem, exc_info=problem)


def _references(payload: object) -> References:
    if not isinstance(payload, QueueRequest):
        return References()
    return References(tuple(stack_references(payload.stack)))


def _save(image: Image, path: Path) -> None:
    try:
        image.save(path)
    except OSError:
        # What a full disk leaves of it is listed in no report, and would stand in the way of the next run.
        path.unlink(missing_ok=True)
        raise


def _lines(problem: Exception) -> tuple[str, ...]:
    if isinstance(problem, StackError):
        return tuple(map(str, problem.problems))
    return (" ".join(str(problem).split()) or type(problem).__name__,)


def _malformed_report(line: MalformedLine) -> RequestReport:
    return RequestReport(id=f"line {line.line}", line=line.line, problems=(line.reason,))


def _ignore(report: RequestReport) -> None:
    pass
