"""ModelLoader: checkpoints of any format and number of files, by one set of choices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from .cancelling import Cancelled
from .errors import SafetensorsLoadError
from .files.checkpoint import are_pickles, checkpoint_format, find_checkpoint
from .files.pickled_shards import load_pickles
from .files.shards import ShardIndex, check_shards, read_index
from .gguf.header import read_gguf_header
from .gguf.load import load_gguf
from .gguf.on_numpy import refusal
from .in_thread import run_in_thread
from .memory.spare_memory import SpareMemory
from .placing.footprint import (
    Footprint,
    dequantised_bytes,
    footprint_of,
    gguf_device_bytes,
    handed_out_bytes,
    tensor_device_bytes,
)
from .placing.max_memory import MaxMemory
from .progress import Progress, ProgressMeter
from .reading.filling import Pace
from .reading.opened import OpenFiles
from .robust import Device, PathLike, load_request, request_for
from .strategies.gathering import Gathering
from .strategies.registry import StrategyRegistry
from .strategies.strategy import LoadRequest, LoadResult
from .telemetry import StageClock, added_up
from .upload.uploads import Uploads


class ModelLoader:
    """Loads checkpoints: safetensors in one file or in shards, pickles (weights only), and GGUF, dequantised to `dtype`
    or else to float32.

    `strategy` is a name or `"auto"`; `strategy_kwargs` are the fields of a named one (`max_bytes=`, `workers=`).
    Strategies read safetensors; for the other formats `LoadResult.reasons` says that a named one was not asked.
    `max_memory` refuses, before anything is placed, what would put more bytes on a device than it says: by the headers,
    or by the tensors of a mapped pickle. With `device_map="auto"` it places them instead: in the order of the files on
    the first of its devices with room, blocks (`x.blocks.3.`) whole where one has, on `"disk"` last if that is listed;
    `LoadResult.reasons` says what went where. Without `max_memory` that is all on `device`; a pickle is refused.
    `low_cpu_mem_usage` lets `auto` pass what is cast or moved through host memory piece by piece.
    `spare` keeps the memory of earlier loads for later ones, which then take half the time; that of the process when
    None, which the kernel may take back. `SpareMemory(0)` keeps nothing."""

    def __init__(
        self,
        strategy: str = "auto",
        device_map: Mapping[str, object] | Literal["auto"] | None = None,
        max_memory: Mapping[object, float | str] | None = None,
        dtype: torch.dtype | None = None,
        low_cpu_mem_usage: bool = False,
        *,
        device: Device = "cpu",
        spare: SpareMemory | None = None,
        **strategy_kwargs: Any,
    ) -> None:
        self._registry = StrategyRegistry.default().configured(strategy, strategy_kwargs)
        if strategy != "auto":
            self._registry.require_name(strategy)
        self._strategy = strategy
        rules = None if device_map == "auto" else device_map
        self._max_memory = MaxMemory.of({} if max_memory is None else max_memory, places=device_map == "auto")
        request = replace(request_for([], device, rules, dtype), low_memory=low_cpu_mem_usage)
        self._template = request if spare is None else replace(request, spare=spare)

    def load_checkpoint(
        self, path: PathLike, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> LoadResult:
        """The tensors of a file, of the shards of an index, or of the one checkpoint in a folder."""
        name = find_checkpoint(os.fspath(path))
        kind = checkpoint_format(name)
        if kind == "index":
            return self.load_shards((), name, progress=progress, cancelled=cancelled)
        if kind != "gguf":
            return self.load_shards([name], progress=progress, cancelled=cancelled)
        request = replace(self._template, paths=(name,), pace=Pace(cancelled))
        return self._unasked("GGUF", _load_gguf(request, self._max_memory, progress))

    def _unasked(self, form: str, result: LoadResult) -> LoadResult:
        """`result`, which says so when a strategy was named and not asked."""
        if self._strategy == "auto":
            return result
        reason = f"{form} has one way; {self._strategy!r} reads safetensors"
        return replace(result, reasons=(reason, *result.reasons))

    def load_shards(
        self,
        files: Sequence[PathLike],
        index: PathLike | ShardIndex | None = None,
        *,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> LoadResult:
        """The tensors of `files`, which must agree with each other and with `index` before any weight is read; pickles
        before any is placed. Without files, those that the index names."""
        clock = StageClock()
        with OpenFiles() as opened:
            with clock.stage("header"):
                shards = index if isinstance(index, ShardIndex) or index is None else read_index(index)
                paths = tuple(os.fspath(file) for file in files) or (shards.files if shards is not None else ())
                headers = {} if are_pickles(paths) else check_shards(paths, shards, opened=opened)
            pace = Pace(cancelled)
            request = replace(self._template, paths=paths, headers=headers, pace=pace, opened=opened)
            if are_pickles(paths):
                result = _load_pickles(request, shards, self._max_memory, progress)
                return _timed(self._unasked(os.path.splitext(paths[0])[1], result), clock)
            return _timed(self._load(request, progress), clock)

    def _load(self, request: LoadRequest, progress: Progress | None) -> LoadResult:
        headers = request.headers
        request, told = self._max_memory.place(request, lambda: handed_out_bytes(headers.values(), request))
        if progress is None and not self._max_memory.limit_bytes:
            return load_request(request, self._strategy, self._registry)
        needs = footprint_of(headers.values(), request)
        request = self._limited(request, needs)
        wanted = ((header, request.devices(header.tensors)) for header in headers.values())
        meter = ProgressMeter(needs.read_bytes, wanted, progress)
        request = replace(request, pace=replace(request.pace, reached=meter.add))
        result = load_request(request, self._strategy, self._registry)
        meter.finish(request.paths[-1])
        return replace(result, reasons=(*result.reasons, *told))

    def _limited(self, request: LoadRequest, needs: Footprint) -> LoadRequest:
        """`request`, within `max_memory`, or the error that it is not."""
        device_bytes, advice = Counter(needs.device_bytes), "move a part with device_map"
        if needs.leftover_bytes and self._strategy == "auto":
            request = replace(request, low_memory=request.low_memory or "cpu" in self._max_memory.limit_bytes)
        elif needs.leftover_bytes and self._strategy not in ("streaming", "lazy"):
            device_bytes["cpu"] += needs.leftover_bytes
            advice += f", or take 'streaming': {self._strategy!r} keeps {needs.leftover_bytes} bytes that it copied"
        self._max_memory.check(request.paths[0], device_bytes, advice)
        return request

    async def load_shards_async(
        self, files: Sequence[PathLike], index: PathLike | ShardIndex | None = None, *, progress: Progress | None = None
    ) -> LoadResult:
        """`load_shards` off the event loop. Cancelling the task stops the readers between two chunks."""
        return await run_in_thread(
            lambda cancelled: self.load_shards(files, index, progress=progress, cancelled=cancelled)
        )


def _timed(result: LoadResult, clock: StageClock) -> LoadResult:
    """`result` with what came before its strategy: the headers, and the choice."""
    stages_s = added_up((clock.stages_s, result.metrics.stages_s))
    return replace(result, metrics=replace(result.metrics, duration_s=clock.elapsed_s(), stages_s=stages_s))


def _load_gguf(request: LoadRequest, max_memory: MaxMemory, progress: Progress | None) -> LoadResult:
    path = request.paths[0]
    clock = StageClock()
    with clock.stage("header"):
        header = read_gguf_header(path)
    request, told = max_memory.place(request, lambda: dequantised_bytes(header, request))
    max_memory.check(path, gguf_device_bytes(header, request))
    keys = request.devices(header.tensors)
    for key in keys:
        kind = header.tensors[key].type
        if not kind.plain and (reason := refusal(kind)):
            raise SafetensorsLoadError(path, f"{key!r} stays packed: {reason}")
    gathering = Gathering(request, clock)
    gathering.include(path, {key: value for key, value in header.metadata.items() if isinstance(value, str)})
    gathering.require_devices(path, header.tensors)
    read_bytes = sum(header.tensors[key].end - header.tensors[key].start for key in keys)
    meter = ProgressMeter(read_bytes, [(header, keys)], progress)
    pace = replace(request.pace, reached=meter.add)
    groups: dict[str, list[str]] = {}
    for key, device in keys.items():
        # To a GPU the packed bytes go alone; elsewhere the numbers are made here and placed.
        groups.setdefault(device if Uploads.takes(device) else "cpu", []).append(key)
    loaded_bytes = 0
    for device, its in groups.items():
        with clock.stage("read"):
            loaded = load_gguf(path, request.dtype or torch.float32, device, select=its, header=header, pace=pace)
        gathering.add(path, loaded.tensors, buffer_bytes=loaded.metrics.peak_bytes)
        loaded_bytes += loaded.metrics.loaded_bytes
    meter.finish(path)
    result = gathering.result("gguf")
    tensors, metrics = {key: result[key] for key in keys}, replace(result.metrics, loaded_bytes=loaded_bytes)
    return replace(result, tensors=tensors, metrics=metrics, reasons=told)


def _load_pickles(
    request: LoadRequest, index: ShardIndex | None, max_memory: MaxMemory, progress: Progress | None
) -> LoadResult:
    """Their keys and sizes are known only once they are open: mapped, as a rule, with nothing read and nothing
    placed."""
    if max_memory.places:
        reason = "has no header that says what its tensors take; name devices in device_map, or save it as safetensors"
        raise SafetensorsLoadError(request.paths[0], reason)
    meter = ProgressMeter(0, (), progress)
    request = replace(request, pace=replace(request.pace, reached=meter.add))
    gathering = Gathering(request)
    with gathering.clock.stage("read"):
        pickles = load_pickles(request.paths, index, request.pace, request.opened)
    whole = {key: tensor for its in pickles.tensors.values() for key, tensor in its.items()}
    max_memory.check(request.paths[0], tensor_device_bytes(whole, request))
    meter.total_bytes = sum(whole[key].nbytes for key in request.devices(whole))
    # Each file goes once its tensors are copied.
    del whole
    for path in request.paths:
        gathering.include(path, {})
        gathering.add(path, pickles.tensors.pop(path), mapped=True)
        if request.copies:
            pickles.require_unchanged(path, request.opened)
    meter.finish(request.paths[-1])
    return gathering.result("pickled")
