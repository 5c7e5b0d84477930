"""Bytes on disk -> tensors. See docs/architecture.md. From the outside in:

- doors: robust (one file; `load_request` is what all of them end in), batch, cached, model_loader (any format),
  module_loading, module_filling, model_names; awaited: in_thread
- what is asked, and by whom it is done: strategy, registry, auto; eager, lazy, fast_single_file, parallel,
  parallel_async_lazy, streaming; what it gathers: gathering, placement, progress, telemetry, tracking
- which device has room: device_map, max_memory, device_plan, footprint, host_memory
- what a file says: checkpoint, header, shards, strict_json, dtypes, errors; gguf_*; pickled, pickled_shards
- bytes into memory: opened, filling, direct, mapped, private (whole files), selection (parts), stream (as they come);
  its memory: spare_memory, huge_pages; tensors on it: views, flat_views, tensor_file
- to a GPU: uploads (of a load), transfer (of anybody) = upload_layout or upload_source, sending, staging_ring;
  packed_upload; the device: copy_device, cuda_device, fake_device
- the system: kernel, page_cache, disk_kind, disk_probe, rate_limit, breather, daemon_pool

Names load their module when first used, so that whoever needs headers or the page cache alone never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .auto import Choice, Surroundings, choose_strategy
    from .batch import LoadedBatch, load_loras_batch, load_loras_batch_async
    from .cached import SafetensorsCache, load_safetensors_cached
    from .copy_device import CopyDevice, CopyEvent
    from .cuda_device import CudaDevice
    from .device_map import DeviceMap
    from .eager import EagerLoadingStrategy
    from .errors import (
        LoadCancelledError,
        NoCapableLoaderError,
        PickledFileError,
        SafetensorsLoadError,
        SafetensorsValidationError,
    )
    from .fake_device import FakeDevice
    from .fast_single_file import FastSingleFileLoadingStrategy
    from .filling import Pace
    from .gguf_header import GgufEntry, GgufHeader, read_gguf_header
    from .gguf_load import LoadedGguf, load_gguf
    from .gguf_metadata import GgufArray
    from .gguf_numpy import dequantise
    from .gguf_packed import PackedTensor
    from .gguf_types import GgufType
    from .header import SafetensorsHeader, TensorEntry, read_header, read_metadata
    from .host_memory import available_bytes
    from .lazy import LazyLoadingStrategy
    from .mapped import map_tensors
    from .max_memory import MaxMemory
    from .model_loader import ModelLoader
    from .module_filling import Filled, fill_module
    from .module_loading import load_module
    from .packed_upload import UploadedPacked, upload_packed
    from .page_cache import drop_file, resident_bytes, warm_file
    from .parallel import ParallelLoadingStrategy
    from .parallel_async_lazy import ParallelAsyncLazyLoadingStrategy
    from .pickled import load_pickled
    from .private import read_tensors
    from .progress import LoadProgress, shown_on
    from .rate_limit import RateLimit
    from .registry import StrategyRegistry
    from .robust import load_safetensors_robust
    from .shards import ShardIndex, check_shards, read_index
    from .spare_memory import SpareMemory
    from .strategy import Constraints, LoadingStrategy, LoadRequest, LoadResult
    from .stream import StreamedPiece, StreamedTensor, stream_pieces, stream_tensors
    from .streaming import StreamingLoadingStrategy
    from .telemetry import LoadingMetrics
    from .tensor_file import TensorFile
    from .tracking import (
        GpuMemoryStats,
        PerformanceTracker,
        StrategySummary,
        get_gpu_memory_stats,
        log_memory_stats,
        track_loading_performance,
    )
    from .transfer import DeviceTransfer, Upload

_MODULES = {
    "Choice": "auto",
    "Constraints": "strategy",
    "CopyDevice": "copy_device",
    "CopyEvent": "copy_device",
    "CudaDevice": "cuda_device",
    "DeviceMap": "device_map",
    "DeviceTransfer": "transfer",
    "EagerLoadingStrategy": "eager",
    "FakeDevice": "fake_device",
    "FastSingleFileLoadingStrategy": "fast_single_file",
    "Filled": "module_filling",
    "GgufArray": "gguf_metadata",
    "GgufEntry": "gguf_header",
    "GgufHeader": "gguf_header",
    "GgufType": "gguf_types",
    "GpuMemoryStats": "tracking",
    "LazyLoadingStrategy": "lazy",
    "LoadCancelledError": "errors",
    "LoadProgress": "progress",
    "LoadRequest": "strategy",
    "LoadResult": "strategy",
    "LoadedBatch": "batch",
    "LoadedGguf": "gguf_load",
    "LoadingMetrics": "telemetry",
    "LoadingStrategy": "strategy",
    "MaxMemory": "max_memory",
    "ModelLoader": "model_loader",
    "NoCapableLoaderError": "errors",
    "Pace": "filling",
    "PackedTensor": "gguf_packed",
    "ParallelAsyncLazyLoadingStrategy": "parallel_async_lazy",
    "ParallelLoadingStrategy": "parallel",
    "PerformanceTracker": "tracking",
    "PickledFileError": "errors",
    "RateLimit": "rate_limit",
    "SafetensorsCache": "cached",
    "SafetensorsHeader": "header",
    "SafetensorsLoadError": "errors",
    "SafetensorsValidationError": "errors",
    "ShardIndex": "shards",
    "StrategyRegistry": "registry",
    "StrategySummary": "tracking",
    "SpareMemory": "spare_memory",
    "StreamedPiece": "stream",
    "StreamedTensor": "stream",
    "StreamingLoadingStrategy": "streaming",
    "Surroundings": "auto",
    "TensorEntry": "header",
    "TensorFile": "tensor_file",
    "Upload": "transfer",
    "UploadedPacked": "packed_upload",
    "available_bytes": "host_memory",
    "check_shards": "shards",
    "choose_strategy": "auto",
    "dequantise": "gguf_numpy",
    "drop_file": "page_cache",
    "fill_module": "module_filling",
    "get_gpu_memory_stats": "tracking",
    "load_gguf": "gguf_load",
    "load_loras_batch": "batch",
    "load_loras_batch_async": "batch",
    "load_module": "module_loading",
    "load_pickled": "pickled",
    "load_safetensors_cached": "cached",
    "load_safetensors_robust": "robust",
    "log_memory_stats": "tracking",
    "map_tensors": "mapped",
    "read_gguf_header": "gguf_header",
    "read_header": "header",
    "read_index": "shards",
    "read_metadata": "header",
    "read_tensors": "private",
    "resident_bytes": "page_cache",
    "shown_on": "progress",
    "stream_pieces": "stream",
    "stream_tensors": "stream",
    "track_loading_performance": "tracking",
    "upload_packed": "packed_upload",
    "warm_file": "page_cache",
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
