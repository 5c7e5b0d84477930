"""Several adapter files at once, and what to do about the one that is broken."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from .cancelling import Cancelled
from .errors import LoadCancelledError, SafetensorsLoadError
from .in_thread import as_here, run_in_thread
from .memory.spare_memory import SpareMemory
from .placing.footprint import footprint_of
from .reading.filling import Pace
from .robust import Device, PathLike, load_request, request_for
from .strategies.strategy import LoadRequest


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
    paths: Iterable[PathLike],
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    *,
    dtype: torch.dtype | None = None,
    workers: int = 2,
    max_bytes: int | None = None,
    continue_on_error: bool = False,
    cancelled: Cancelled | None = None,
    spare: SpareMemory | None = None,
) -> LoadedBatch:
    """Load `paths`, `workers` at a time. The first failure stops the others and is raised, unless `continue_on_error`:
    then it is kept in `failures`. A path given twice is loaded once.

    Before a file is read, what its header says it takes is reserved of `max_bytes`, copies included; a file for which
    no room is left, in the order of `paths`, has failed. `spare` keeps the memory of earlier batches for later ones, as
    for ModelLoader."""
    names = list(dict.fromkeys(os.fspath(path) for path in paths))
    at_once = max(1, min(workers, len(names)))
    requests = {}
    for name in names:
        request = replace(request_for([name], device, device_map, dtype), at_once=at_once)
        requests[name] = request if spare is None else replace(request, spare=spare)
    try:
        return _load_all(requests, strategy, workers, max_bytes, continue_on_error, cancelled)
    except SafetensorsLoadError as error:
        # Those that it came through hold it, and all that the others loaded.
        _let_go(error)
        raise error


def _load_all(
    requests: Mapping[str, LoadRequest],
    strategy: str,
    workers: int,
    max_bytes: int | None,
    continue_on_error: bool,
    cancelled: Cancelled | None,
) -> LoadedBatch:
    admitted = requests if max_bytes is None else _admitted(requests, max_bytes)
    stop = threading.Event()
    pace = Pace(cancelled).until(stop.is_set)

    def load(name: str) -> dict[str, torch.Tensor] | SafetensorsLoadError:
        request = admitted[name]
        try:
            if isinstance(request, SafetensorsLoadError):
                raise request
            if pace.stopped:
                raise LoadCancelledError(name, "cancelled before it was read")
            return load_request(replace(request, pace=pace), strategy).tensors
        except SafetensorsLoadError as error:
            if not continue_on_error:
                stop.set()
            _let_go(error)
            return error

    if workers == 1 or strategy == "lazy":
        # Views are all Python: a second thread would only wait for the first.
        return _batch({name: load(name) for name in requests}, continue_on_error)
    with ThreadPoolExecutor(workers, "warmstack-batch") as pool:
        try:
            outcomes = dict(zip(requests, pool.map(as_here(load), requests), strict=True))
        finally:
            stop.set()
    return _batch(outcomes, continue_on_error)


async def load_loras_batch_async(
    paths: Iterable[PathLike],
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    *,
    dtype: torch.dtype | None = None,
    workers: int = 2,
    max_bytes: int | None = None,
    continue_on_error: bool = False,
    spare: SpareMemory | None = None,
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
            max_bytes=max_bytes,
            continue_on_error=continue_on_error,
            cancelled=cancelled,
            spare=spare,
        )
    )


def _let_go(error: BaseException | None) -> None:
    """Whoever keeps an error keeps the frames that it came through, and those keep what had been read, and the error
    where they return it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _admitted(requests: Mapping[str, LoadRequest], max_bytes: int) -> dict[str, LoadRequest | SafetensorsLoadError]:
    """Each request with the header that was read for it, or why it may not run."""
    admitted: dict[str, LoadRequest | SafetensorsLoadError] = {}
    reserved_bytes = 0
    for name, request in requests.items():
        try:
            header = request.header(name)
        except SafetensorsLoadError as error:
            admitted[name] = error
            continue
        needed_bytes = footprint_of([header], request).host_bytes
        if reserved_bytes + needed_bytes > max_bytes:
            left_bytes = max_bytes - reserved_bytes
            admitted[name] = SafetensorsLoadError(
                name,
                f"needs {needed_bytes} bytes and {left_bytes} of the batch's max_bytes are left; load fewer at once",
            )
            continue
        reserved_bytes += needed_bytes
        admitted[name] = replace(request, headers={name: header})
    return admitted


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
