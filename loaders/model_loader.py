"""ModelLoader: checkpoints of any format and number of files, by one set of choices."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .checkpoint import checkpoint_format, find_checkpoint
from .errors import SafetensorsLoadError
from .filling import Pace
from .gathering import Gathering
from .gguf_header import read_gguf_header
from .gguf_load import load_gguf
from .header import SafetensorsHeader
from .in_thread import run_in_thread
from .max_memory import MaxMemory
from .pickled import load_pickled
from .registry import StrategyRegistry
from .robust import Device, Path, load_request, request_for
from .shards import ShardIndex, check_shards, read_index
from .strategy import LoadRequest, LoadResult


class LoadProgress(NamedTuple):
    """How far a load is, after each chunk that has arrived."""

    done_bytes: int
    total_bytes: int
    path: str
    """The file that the chunk belongs to."""


Progress = Callable[[LoadProgress], None]
"""May be called from a reading thread."""


class ModelLoader:
    """Loads checkpoints: safetensors in one file or in shards, pickles (weights only), and GGUF, dequantised to `dtype`
    or else to float32.

    `strategy` is a name or `"auto"`; `strategy_kwargs` are the fields of a named one (`max_bytes=`, `workers=`).
    `max_memory` refuses, before reading safetensors, what would put more bytes on a device than it says.
    `low_cpu_mem_usage` lets `auto` pass what is cast or moved through host memory piece by piece."""

    def __init__(
        self,
        strategy: str = "auto",
        device_map: Mapping[str, object] | None = None,
        max_memory: Mapping[object, int | str] | None = None,
        dtype: torch.dtype | None = None,
        low_cpu_mem_usage: bool = False,
        *,
        device: Device = "cpu",
        **strategy_kwargs: Any,
    ) -> None:
        self._registry = StrategyRegistry.default().configured(strategy, strategy_kwargs)
        self._strategy = strategy
        self._max_memory = MaxMemory.of(max_memory or {})
        self._template = replace(request_for([], device, device_map, dtype), low_memory=low_cpu_mem_usage)

    def load_checkpoint(
        self, path: Path, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
    ) -> LoadResult:
        """The tensors of a file, of the shards of an index, or of the one checkpoint in a folder."""
        name = find_checkpoint(os.fspath(path))
        kind = checkpoint_format(name)
        if kind == "index":
            return self.load_shards((), name, progress=progress, cancelled=cancelled)
        if kind == "safetensors":
            return self.load_shards([name], progress=progress, cancelled=cancelled)
        request = replace(self._template, paths=(name,), pace=Pace(cancelled))
        result = _load_gguf(request) if kind == "gguf" else _load_pickle(request)
        if progress is not None:
            progress(LoadProgress(result.metrics.loaded_bytes, result.metrics.loaded_bytes, name))
        return result

    def load_shards(
        self,
        files: Sequence[Path],
        index: Path | ShardIndex | None = None,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> LoadResult:
        """The tensors of `files`, which must agree with each other and with `index` before any weight is read. Without
        files, those that the index names."""
        shards = index if isinstance(index, ShardIndex) or index is None else read_index(index)
        paths = tuple(os.fspath(file) for file in files) or (shards.files if shards is not None else ())
        headers = check_shards(paths, shards)
        request = replace(self._template, paths=paths, headers=headers)
        self._max_memory.check(headers.values(), request)
        meter = _Meter(request, headers.values(), progress)
        result = load_request(replace(request, pace=Pace(cancelled, None, meter.add)), self._strategy, self._registry)
        meter.finish()
        return result

    async def load_shards_async(
        self, files: Sequence[Path], index: Path | ShardIndex | None = None, *, progress: Progress | None = None
    ) -> LoadResult:
        """`load_shards` off the event loop. Cancelling the task stops the readers between two chunks."""
        return await run_in_thread(
            lambda cancelled: self.load_shards(files, index, progress=progress, cancelled=cancelled)
        )


class _Meter:
    """Turns the chunks of any number of reading threads into one progress."""

    def __init__(self, request: LoadRequest, headers: Iterable[SafetensorsHeader], progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._last_path = request.paths[-1] if request.paths else ""
        self._total_bytes = sum(
            header.tensors[key].end - header.tensors[key].start
            for header in headers
            for key in request.devices(header.tensors)
        )

    def add(self, path: str, nbytes: int) -> None:
        if self._progress is not None:
            with self._lock:
                # Direct reads and small holes count more bytes than the tensors have.
                self._done_bytes = min(self._done_bytes + nbytes, self._total_bytes)
                self._progress(LoadProgress(self._done_bytes, self._total_bytes, path))

    def finish(self) -> None:
        """Say 100% where mapped tensors were never read."""
        self.add(self._last_path, self._total_bytes - self._done_bytes)


def _load_gguf(request: LoadRequest) -> LoadResult:
    path = request.paths[0]
    gathering = Gathering(request)
    with gathering.clock.stage("header"):
        header = read_gguf_header(path)
    gathering.include(path, {key: value for key, value in header.metadata.items() if isinstance(value, str)})
    with gathering.clock.stage("read"):
        keys = request.devices(header.tensors)
        loaded = load_gguf(path, request.dtype or torch.float32, select=keys, header=header, pace=request.pace)
    for key, tensor in loaded.packed.items():
        raise SafetensorsLoadError(path, f"{key!r} stays packed: {tensor.reason}")
    gathering.add(path, loaded.tensors, buffer_bytes=loaded.metrics.peak_bytes)
    return gathering.result("gguf")


def _load_pickle(request: LoadRequest) -> LoadResult:
    path = request.paths[0]
    gathering = Gathering(request)
    gathering.include(path, {})
    with gathering.clock.stage("read"):
        tensors = load_pickled(path)
    gathering.add(path, tensors)
    return gathering.result("pickled")
