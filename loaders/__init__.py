"""Bytes on disk -> tensors. See docs/architecture.md.

Doors: robust (one file; `load_request` is what all of them end in), batch, cached, model_loader (any format),
module_loading, module_filling (model_names tells what a model calls its tensors), transfer (to a GPU); in_thread makes
any of them awaitable, cancelling stops them, progress, telemetry and tracking tell of them, sizes reads "6GB". Behind
them, a folder each:

- strategies: the ways to load, one file each, and `auto`, which chooses
- files: what a file says before its tensors are read; errors, of everybody here
- gguf: the format's header, packed tensors and kernels
- reading: bytes into memory: whole files, parts, streams, mappings; the tensors on it
- placing: which tensor goes to which device, and whether there is room
- memory: how much the host has, in pages of which size, and what is kept of an earlier load
- upload: what a copy to a GPU is made of, and the devices behind one seam
- system: page cache, disks, threads, rates

Names load their module when first used, so that whoever needs headers or the page cache alone never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .batch import LoadedBatch, load_loras_batch, load_loras_batch_async
    from .cached import SafetensorsCache, load_safetensors_cached
    from .errors import (
        LoadCancelledError,
        NoCapableLoaderError,
        PickledFileError,
        SafetensorsLoadError,
        SafetensorsValidationError,
    )
    from .files.header import SafetensorsHeader, TensorEntry, read_header, read_metadata
    from .files.pickled import load_pickled
    from .files.shards import ShardIndex, check_shards, read_index
    from .gguf.header import GgufEntry, GgufHeader, read_gguf_header
    from .gguf.load import LoadedGguf, load_gguf
    from .gguf.metadata import GgufArray
    from .gguf.on_numpy import dequantise
    from .gguf.packed import PackedTensor
    from .gguf.quant_types import GgufType
    from .memory.host_memory import available_bytes
    from .memory.spare_memory import SpareMemory, process_spare
    from .model_loader import ModelLoader
    from .module_filling import Filled, fill_module
    from .module_loading import load_module
    from .placing.device_map import DeviceMap
    from .placing.max_memory import MaxMemory
    from .progress import LoadProgress, shown_on
    from .reading.filling import Pace
    from .reading.mapped import map_tensors
    from .reading.private import read_tensors
    from .reading.stream import StreamedPiece, StreamedTensor, stream_pieces, stream_tensors
    from .reading.tensor_file import TensorFile
    from .robust import load_safetensors_robust
    from .strategies.auto import Choice, Surroundings, choose_strategy
    from .strategies.eager import EagerLoadingStrategy
    from .strategies.fast_single_file import FastSingleFileLoadingStrategy
    from .strategies.lazy import LazyLoadingStrategy
    from .strategies.parallel import ParallelLoadingStrategy
    from .strategies.parallel_async_lazy import ParallelAsyncLazyLoadingStrategy
    from .strategies.registry import StrategyRegistry
    from .strategies.strategy import Constraints, LoadingStrategy, LoadRequest, LoadResult
    from .strategies.streaming import StreamingLoadingStrategy
    from .system.page_cache import drop_file, resident_bytes, warm_file
    from .system.rate_limit import RateLimit
    from .telemetry import LoadingMetrics
    from .tracking import (
        GpuMemoryStats,
        PerformanceTracker,
        StrategySummary,
        get_gpu_memory_stats,
        log_memory_stats,
        track_loading_performance,
    )
    from .transfer import DeviceTransfer, Upload
    from .upload.copy_device import CopyDevice, CopyEvent
    from .upload.cuda_device import CudaDevice
    from .upload.fake_device import FakeDevice
    from .upload.packed_upload import UploadedPacked, upload_packed

_MODULES = {
    "Choice": "strategies.auto",
    "Constraints": "strategies.strategy",
    "CopyDevice": "upload.copy_device",
    "CopyEvent": "upload.copy_device",
    "CudaDevice": "upload.cuda_device",
    "DeviceMap": "placing.device_map",
    "DeviceTransfer": "transfer",
    "EagerLoadingStrategy": "strategies.eager",
    "FakeDevice": "upload.fake_device",
    "FastSingleFileLoadingStrategy": "strategies.fast_single_file",
    "Filled": "module_filling",
    "GgufArray": "gguf.metadata",
    "GgufEntry": "gguf.header",
    "GgufHeader": "gguf.header",
    "GgufType": "gguf.quant_types",
    "GpuMemoryStats": "tracking",
    "LazyLoadingStrategy": "strategies.lazy",
    "LoadCancelledError": "errors",
    "LoadProgress": "progress",
    "LoadRequest": "strategies.strategy",
    "LoadResult": "strategies.strategy",
    "LoadedBatch": "batch",
    "LoadedGguf": "gguf.load",
    "LoadingMetrics": "telemetry",
    "LoadingStrategy": "strategies.strategy",
    "MaxMemory": "placing.max_memory",
    "ModelLoader": "model_loader",
    "NoCapableLoaderError": "errors",
    "Pace": "reading.filling",
    "PackedTensor": "gguf.packed",
    "ParallelAsyncLazyLoadingStrategy": "strategies.parallel_async_lazy",
    "ParallelLoadingStrategy": "strategies.parallel",
    "PerformanceTracker": "tracking",
    "PickledFileError": "errors",
    "RateLimit": "system.rate_limit",
    "SafetensorsCache": "cached",
    "SafetensorsHeader": "files.header",
    "SafetensorsLoadError": "errors",
    "SafetensorsValidationError": "errors",
    "ShardIndex": "files.shards",
    "StrategyRegistry": "strategies.registry",
    "StrategySummary": "tracking",
    "SpareMemory": "memory.spare_memory",
    "StreamedPiece": "reading.stream",
    "StreamedTensor": "reading.stream",
    "StreamingLoadingStrategy": "strategies.streaming",
    "Surroundings": "strategies.auto",
    "TensorEntry": "files.header",
    "TensorFile": "reading.tensor_file",
    "Upload": "transfer",
    "UploadedPacked": "upload.packed_upload",
    "available_bytes": "memory.host_memory",
    "check_shards": "files.shards",
    "choose_strategy": "strategies.auto",
    "dequantise": "gguf.on_numpy",
    "drop_file": "system.page_cache",
    "fill_module": "module_filling",
    "get_gpu_memory_stats": "tracking",
    "load_gguf": "gguf.load",
    "load_loras_batch": "batch",
    "load_loras_batch_async": "batch",
    "load_module": "module_loading",
    "load_pickled": "files.pickled",
    "load_safetensors_cached": "cached",
    "load_safetensors_robust": "robust",
    "log_memory_stats": "tracking",
    "map_tensors": "reading.mapped",
    "process_spare": "memory.spare_memory",
    "read_gguf_header": "gguf.header",
    "read_header": "files.header",
    "read_index": "files.shards",
    "read_metadata": "files.header",
    "read_tensors": "reading.private",
    "resident_bytes": "system.page_cache",
    "shown_on": "progress",
    "stream_pieces": "reading.stream",
    "stream_tensors": "reading.stream",
    "track_loading_performance": "tracking",
    "upload_packed": "upload.packed_upload",
    "warm_file": "system.page_cache",
}

__all__ = [
    "Choice",
    "Constraints",
    "CopyDevice",
    "CopyEvent",
    "CudaDevice",
    "DeviceMap",
    "DeviceTransfer",
    "EagerLoadingStrategy",
    "FakeDevice",
    "FastSingleFileLoadingStrategy",
    "Filled",
    "GgufArray",
    "GgufEntry",
    "GgufHeader",
    "GgufType",
    "GpuMemoryStats",
    "LazyLoadingStrategy",
    "LoadCancelledError",
    "LoadProgress",
    "LoadRequest",
    "LoadResult",
    "LoadedBatch",
    "LoadedGguf",
    "LoadingMetrics",
    "LoadingStrategy",
    "MaxMemory",
    "ModelLoader",
    "NoCapableLoaderError",
    "Pace",
    "PackedTensor",
    "ParallelAsyncLazyLoadingStrategy",
    "ParallelLoadingStrategy",
    "PerformanceTracker",
    "PickledFileError",
    "RateLimit",
    "SafetensorsCache",
    "SafetensorsHeader",
    "SafetensorsLoadError",
    "SafetensorsValidationError",
    "ShardIndex",
    "SpareMemory",
    "StrategyRegistry",
    "StrategySummary",
    "StreamedPiece",
    "StreamedTensor",
    "StreamingLoadingStrategy",
    "Surroundings",
    "TensorEntry",
    "TensorFile",
    "Upload",
    "UploadedPacked",
    "available_bytes",
    "check_shards",
    "choose_strategy",
    "dequantise",
    "drop_file",
    "fill_module",
    "get_gpu_memory_stats",
    "load_gguf",
    "load_loras_batch",
    "load_loras_batch_async",
    "load_module",
    "load_pickled",
    "load_safetensors_cached",
    "load_safetensors_robust",
    "log_memory_stats",
    "map_tensors",
    "process_spare",
    "read_gguf_header",
    "read_header",
    "read_index",
    "read_metadata",
    "read_tensors",
    "resident_bytes",
    "shown_on",
    "stream_pieces",
    "stream_tensors",
    "track_loading_performance",
    "upload_packed",
    "warm_file",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
