"""Several adapter files at once, and what to do about the one that is broken."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from .errors import LoadCancelledError, SafetensorsLoadError
from .filling import Pace
from .in_thread import run_in_thread
from .robust import Device, Path, load_request, request_for


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBatch(Mapping[str, dict[str, torch.Tensor]]):
    """path -> tensors of every file that loaded, in the order asked for."""

    loaded: Mapping[str, dict[str, torch.Tensor]]
    failures: Mapping[str, SafetensorsLoadError]
    """path -> error of the others; empty unless the batch was told to continue."""

    def __getitem__(self, path: str) -> dict[str, torch.Tensor]:
        return self.loaded[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.loaded)

    def __len__(self) -> int:
        return len(self.loaded)


def load_loras_batch(
    paths: Iterable[Path],
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    *,
    dtype: torch.dtype | None = None,
    workers: int = 2,
    continue_on_error: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> LoadedBatch:
    """Load `paths`, `workers` at a time. The first failure stops the others and is raised, unless `continue_on_error`:
    then it is kept in `failures`. A path given twice is loaded once."""
    names = list(dict.fromkeys(os.fspath(path) for path in paths))
    stop = threading.Event()

    def stopped() -> bool:
        return stop.is_set() or (cancelled is not None and cancelled())

    def load(name: str) -> dict[str, torch.Tensor] | SafetensorsLoadError:
        try:
            if stopped():
                raise LoadCancelledError(name, "cancelled before it was read")
            request = request_for([name], device, device_map, dtype)
            return load_request(replace(request, pace=Pace(stopped)), strategy).tensors
        except SafetensorsLoadError as error:
            if not continue_on_error:
                stop.set()
            return error

    with ThreadPoolExecutor(workers, "warmstack-batch") as pool:
        outcomes = dict(zip(names, pool.map(load, names), strict=True))
    return _batch(outcomes, continue_on_error)


async def load_loras_batch_async(
    paths: Iterable[Path],
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    *,
    dtype: torch.dtype | None = None,
    workers: int = 2,
    continue_on_error: bool = False,
) -> LoadedBatch:
    """`load_loras_batch` off the event loop. Cancelling the task stops the reads between two chunks."""
    names = list(paths)
    return await run_in_thread(
        lambda cancelled: load_loras_batch(
            names,
            device,
            device_map,
            strategy,
            dtype=dtype,
            workers=workers,
            continue_on_error=continue_on_error,
            cancelled=cancelled,
        )
    )


def _batch(outcomes: Mapping[str, dict[str, torch.Tensor] | SafetensorsLoadError], go_on: bool) -> LoadedBatch:
    failures = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, SafetensorsLoadError)}
    cancellation = next((error for error in failures.values() if isinstance(error, LoadCancelledError)), None)
    causes = [error for error in failures.values() if not isinstance(error, LoadCancelledError)]
    if causes and not go_on:
        raise causes[0]
    if cancellation is not None:
        raise cancellation
    loaded = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, SafetensorsLoadError)}
    return LoadedBatch(loaded, failures)
