"""The weights of one model file, of whatever format, as a state dict for the host's detection. Needs no host."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch

from ...loaders.errors import LoadCancelledError, SafetensorsLoadError
from ...loaders.files.checkpoint import checkpoint_format
from ...loaders.files.shards import check_shards, read_index
from ...loaders.gguf.header import GgufHeader, read_gguf_header
from ...loaders.gguf.load import LoadedGguf, load_gguf
from ...loaders.gguf.on_numpy import refusal
from ...loaders.memory.spare_memory import SpareMemory
from ...loaders.model_loader import ModelLoader
from ...loaders.progress import Progress, ProgressMeter
from ...loaders.reading.filling import Pace
from ...loaders.reading.opened import stamp_path
from ...loaders.strategies.registry import StrategyRegistry
from ...loaders.strategies.strategy import LoadRequest
from ...loaders.telemetry import LoadingMetrics, added_up
from .linked_names import WrittenName
from .model_files import ModelFileError, ModelFiles

ModelState: TypeAlias = "tuple[object, ...]"

_MIB = 1 << 20
_DEQUANTISED = torch.float16
"""Of two bytes the closest to any quantised weight; the host casts it to what it computes in."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelWeights:
    """What a file holds, and one line about how it was loaded."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    metrics: LoadingMetrics
    report: str


class LinkedModel(NamedTuple):
    """What a name means, and how that was."""

    path: str
    state: ModelState


def strategy_names() -> list[str]:
    return ["auto", *StrategyRegistry.default().strategies]


def check_weights(name: str, path: str, strategy: str) -> None:
    """ModelFileError when the headers of `path` are wrong, or `strategy` cannot load it. Reads headers alone; a pickle
    is not opened."""
    try:
        kind = checkpoint_format(path)
        if kind == "gguf":
            _check_types(read_gguf_header(path))
        elif kind != "pickle":
            index = read_index(path) if kind == "index" else None
            files = (path,) if index is None else index.files
            check_shards(files, index)
            if strategy != "auto":
                StrategyRegistry.default().require(strategy, LoadRequest(files))
    except (SafetensorsLoadError, ValueError) as error:
        raise _named(name, path, error) from error


def read_weights(
    name: str,
    path: str,
    strategy: str,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> ModelWeights:
    """The tensors of the file or of the shards that it names. Raises ModelFileError, or LoadCancelledError."""
    try:
        if checkpoint_format(path) == "gguf":
            return _read_gguf(name, path, progress, cancelled)
        # Nothing is kept of a model: the host may have registered its memory with the driver.
        loader = ModelLoader(strategy, spare=SpareMemory(0))
        result = loader.load_checkpoint(path, progress=progress, cancelled=cancelled)
    except LoadCancelledError:
        raise
    except (SafetensorsLoadError, ValueError) as error:
        raise _named(name, path, error) from error
    report = _report(name, result.metrics, "; ".join(result.reasons))
    return ModelWeights(result.tensors, dict(result.metadata), result.metrics, report)


def model_state(files: ModelFiles, written: WrittenName, known: LinkedModel | None) -> LinkedModel | None:
    """For `LinkedNames`, of what the model loaders load."""
    del known
    try:
        path = files.find(written.name)
        return LinkedModel(path, weights_state(path))
    except ModelFileError:
        return None


def weights_state(path: str) -> ModelState:
    """Changes whenever the file or one of its shards does."""
    try:
        paths = [path, *(read_index(path).files if checkpoint_format(path) == "index" else ())]
        return tuple((os.path.basename(part), *stamp_path(part)) for part in paths)
    except SafetensorsLoadError as error:
        return (error.reason,)


def _read_gguf(name: str, path: str, progress: Progress | None, cancelled: Callable[[], bool] | None) -> ModelWeights:
    """Plain tensors as the file has them: a cast would change what the host detects."""
    header = read_gguf_header(path)
    _check_types(header)
    total_bytes = sum(entry.end - entry.start for entry in header.tensors.values())
    meter = ProgressMeter(total_bytes, [(header, header.tensors)], progress)
    pace = Pace(cancelled, reached=meter.add)

    def load(dtype: torch.dtype | None, *, plain: bool) -> LoadedGguf:
        keys = [key for key, entry in header.tensors.items() if entry.type.plain == plain]
        return load_gguf(path, dtype, select=keys, header=header, pace=pace)

    kept, dequantised = load(None, plain=True), load(_DEQUANTISED, plain=False)
    meter.finish(path)
    metrics = replace(
        kept.metrics,
        tensors=len(header.tensors),
        loaded_bytes=total_bytes,
        peak_bytes=kept.metrics.peak_bytes + dequantised.metrics.peak_bytes,
        duration_s=kept.metrics.duration_s + dequantised.metrics.duration_s,
        stages_s=added_up((kept.metrics.stages_s, dequantised.metrics.stages_s)),
    )
    metadata = {key: value for key, value in header.metadata.items() if isinstance(value, str)}
    note = f"{len(dequantised.tensors)} of them dequantised to float16"
    return ModelWeights({**kept.tensors, **dequantised.tensors}, metadata, metrics, _report(name, metrics, note))


def _check_types(header: GgufHeader) -> None:
    for key, entry in header.tensors.items():
        reason = "" if entry.type.plain else refusal(entry.type)
        if reason:
            raise SafetensorsLoadError(header.path, f"{key!r} cannot be dequantised: {reason}")


def _report(name: str, metrics: LoadingMetrics, reasons: str) -> str:
    size = f"{metrics.tensors} tensors, {metrics.loaded_bytes / _MIB:.0f} MiB in {metrics.duration_s:.2f} s"
    return f"{name}: {metrics.strategy}, {size}" + (f" ({reasons})" if reasons else "")


def _named(name: str, path: str, error: SafetensorsLoadError | ValueError) -> ModelFileError:
    if not isinstance(error, SafetensorsLoadError):
        return ModelFileError(name, str(error))
    part = "" if error.path in (path, "") else f"{os.path.basename(error.path)}: "
    return ModelFileError(name, part + error.reason)
