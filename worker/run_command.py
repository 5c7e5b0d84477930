"""`warmstack run`: one or two passes over a queue, their pictures, contact sheet and report."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from ..loaders.system.page_cache import drop_file
from ..lora.library.file import LoraFile
from ..prefetch.settings import PrefetchSettings
from .batch import Batch, Mode, run_batch
from .config import MIB, LoRAWorkerConfig
from .contact_sheet import save_contact_sheet
from .interruption import STATUS, Interruption
from .lora_pipeline import LoraPipeline
from .lora_worker import LoRAWorker
from .output_folder import REPORT, SHEET, claim_output, write_report
from .pipelines import Generator, load_pipeline
from .report import ImageComparison, RequestReport, RunReport, compare_images
from .request import QueueLine, QueueRequest, read_queue
from .state_folder import index_path
from .tables import mebibytes, request_table, totals_table


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of `warmstack run`."""

    queue: Path
    pipeline: Path
    loras: tuple[Path, ...]
    output: Path
    modes: tuple[Mode, ...] = ("prefetch",)
    """With two, the pictures of both are compared."""
    cold: bool = False
    steps: int | None = None
    """Of requests that say none."""
    memory_limit_mb: int | None = None
    device_budget_mb: int | None = None
    """Adapters kept on a CUDA device; None: as the environment says, by default none."""
    device: str = "auto"
    dtype: str = "auto"
    state: Path | None = None
    """Folder for what is learned of the library; None: the user's own."""

    def images(self, mode: Mode) -> Path:
        """The last pass owns `images/`, the one before it `images-<mode>/`."""
        return self.output / ("images" if mode == self.modes[-1] else f"images-{mode}")

    def pictures(self, lines: Sequence[QueueLine]) -> list[Path]:
        """Where those of all passes go."""
        requests = [line for line in lines if isinstance(line, QueueRequest)]
        return [self.images(mode) / request.image for mode in self.modes for request in requests]


def run_command(options: RunOptions, console: Console) -> int:
    """Returns the exit status. Raises OSError and ValueError for a queue or pipeline that cannot be read, and for
    `cold` where the system forgets no file."""
    if options.cold and not hasattr(os, "posix_fadvise"):
        raise ValueError("--cold needs Linux: this system drops no file from its page cache when asked")
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    pipeline: LoraPipeline = load_pipeline(options.pipeline, options.device, options.dtype)
    with Interruption() as interruption:
        runs: list[RunReport] = []
        lines: tuple[QueueLine, ...] = ()
        for mode in options.modes:
            if interruption.asked:
                break
            # One of its own each time: the second pass must not profit from what the first has loaded.
            with closing(_worker(options, pipeline)) as worker:
                files = worker.discover()
                if not runs:
                    lines = read_queue(options.queue, worker.catalog.category_of)
                    claim_output(options.output, options.pictures(lines))
                batch = Batch(lines, pipeline, Generator(options.steps), options.images(mode), _settings(options))
                if options.cold:
                    _cool(files)
                _announce(mode, batch, files, worker, console)
                runs.append(_pass(worker, batch, mode, console, interruption))
        return _conclude(options, runs, interruption.asked, console) if runs else STATUS


def _conclude(options: RunOptions, runs: Sequence[RunReport], interrupted: bool, console: Console) -> int:
    """Leave everything behind that a run leaves; the exit status."""
    done = options.modes[: len(runs)]
    made = {request.image for run in runs for request in run.requests if request.image}
    first, pictures = options.images(done[0]), options.images(done[-1])
    comparison = compare_images(first, pictures, made) if len(done) == 2 and not interrupted else None
    sheet, report = options.output / SHEET, options.output / REPORT
    missing = report
    try:
        write_report(options.output, _report(options, runs, comparison, interrupted))
        missing = sheet
        save_contact_sheet(runs[-1].requests, pictures, sheet)
    except OSError as problem:
        unwritten = f"{missing} cannot be written: {problem.strerror or problem}; the pictures are in {pictures}"
        Console(stderr=True).print(f"[red]{escape(unwritten)}[/red]", soft_wrap=True)
        return STATUS if interrupted else 1
    finally:
        _show(runs, comparison, console)
    console.print(f"Pictures in {pictures}, overview {sheet}, figures {report}", soft_wrap=True)
    if interrupted:
        return STATUS
    unexpected = any(not request.expected for run in runs for request in run.requests)
    return 1 if unexpected or (comparison is not None and not comparison.identical) else 0


def _worker(options: RunOptions, pipeline: LoraPipeline) -> LoRAWorker:
    settings = _settings(options)
    return LoRAWorker(
        LoRAWorkerConfig(
            lora_directories=options.loras,
            memory_limit_mb=_mebibytes(settings.budget_bytes),
            device=str(pipeline.device) if settings.device_tier else None,
            device_budget_mb=_mebibytes(settings.device_budget_bytes),
            pinned_budget_mb=_mebibytes(settings.pinned_budget_bytes),
            index_path=index_path(options.loras, options.state),
        )
    )


def _announce(mode: Mode, batch: Batch, files: Sequence[LoraFile], worker: LoRAWorker, console: Console) -> None:
    size = mebibytes(sum(file.size_bytes for file in files))
    console.print(f"[bold]{mode}[/bold]: {len(batch.lines)} requests, {len(files)} LoRAs of {size} in all")
    refusal = worker.status().device_problem
    if refusal:
        console.print(f"[yellow]{escape(refusal)}[/yellow]", soft_wrap=True)


def _pass(worker: LoRAWorker, batch: Batch, mode: Mode, console: Console, interruption: Interruption) -> RunReport:
    with _progress(console) as progress:
        task = progress.add_task(mode, total=len(batch.requests))

        def advance(report: RequestReport) -> None:
            progress.update(task, advance=1, description=f"{mode}: {escape(report.id)}")

        return run_batch(worker, batch, mode, advance, lambda: interruption.asked)


def _settings(options: RunOptions) -> PrefetchSettings:
    """Of the environment, and of the command line, which wins."""
    settings = PrefetchSettings.from_environment()
    if options.memory_limit_mb is not None:
        settings = replace(settings, budget_bytes=options.memory_limit_mb * MIB)
    if options.device_budget_mb is not None:
        budget_bytes = options.device_budget_mb * MIB
        settings = replace(settings, device_tier=budget_bytes > 0, device_budget_bytes=budget_bytes)
    return settings


def _mebibytes(nbytes: int | None) -> int | None:
    return None if nbytes is None else nbytes // MIB


def _cool(files: Sequence[LoraFile]) -> None:
    for file in files:
        drop_file(file.path)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _show(runs: Sequence[RunReport], comparison: ImageComparison | None, console: Console) -> None:
    console.print(request_table(runs))
    for note in dict.fromkeys(note for run in runs for request in run.requests for note in request.notes):
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)
    console.print(totals_table(runs))
    for request in runs[-1].failures:
        for problem in request.problems:
            console.print(f"[red]{escape(request.id)}[/red]: {escape(problem)}", soft_wrap=True)
    if comparison is None:
        return
    if comparison.identical:
        console.print(f"[green]The {comparison.compared} images of both runs are identical, byte for byte.[/green]")
    else:
        console.print(f"[red]The images of the two runs differ: {escape(', '.join(comparison.different))}[/red]")


def _report(
    options: RunOptions, runs: Sequence[RunReport], comparison: ImageComparison | None, interrupted: bool
) -> dict[str, object]:
    folders = [options.images(mode).name for mode in options.modes]
    compared = None if comparison is None else {**comparison._asdict(), "identical": comparison.identical}
    return {
        "torch": torch.__version__,
        "platform": platform.platform(),
        "interrupted": interrupted,
        "comparison": compared,
        "runs": [{"folder": folder, **run.as_json()} for folder, run in zip(folders, runs, strict=False)],
    }
