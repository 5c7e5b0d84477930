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

Names load their module when first used (lazy_names), so that whoever needs headers or the page cache alone never
imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy_names import lazy_names

if TYPE_CHECKING:
    from .batch import LoadedBatch as LoadedBatch
    from .batch import load_loras_batch as load_loras_batch
    from .batch import load_loras_batch_async as load_loras_batch_async
    from .cached import SafetensorsCache as SafetensorsCache
    from .cached import load_safetensors_cached as load_safetensors_cached
    from .errors import LoadCancelledError as LoadCancelledError
    from .errors import NoCapableLoaderError as NoCapableLoaderError
    from .errors import PickledFileError as PickledFileError
    from .errors import SafetensorsLoadError as SafetensorsLoadError
    from .errors import SafetensorsValidationError as SafetensorsValidationError
    from .files.header import SafetensorsHeader as SafetensorsHeader
    from .files.header import read_header as read_header
    from .files.header import read_metadata as read_metadata
    from .files.pickled import load_pickled as load_pickled
    from .files.shards import ShardIndex as ShardIndex
    from .files.shards import check_shards as check_shards
    from .files.shards import read_index as read_index
    from .files.tensor_entry import TensorEntry as TensorEntry
    from .gguf.header import GgufEntry as GgufEntry
    from .gguf.header import GgufHeader as GgufHeader
    from .gguf.header import read_gguf_header as read_gguf_header
    from .gguf.load import LoadedGguf as LoadedGguf
    from .gguf.load import load_gguf as load_gguf
    from .gguf.metadata import GgufArray as GgufArray
    from .gguf.on_numpy import dequantise as dequantise
    from .gguf.packed import PackedTensor as PackedTensor
    from .gguf.quant_types import GgufType as GgufType
    from .memory.host_memory import available_bytes as available_bytes
    from .memory.spare_memory import SpareMemory as SpareMemory
    from .memory.spare_memory import process_spare as process_spare
    from .model_loader import ModelLoader as ModelLoader
    from .module_filling import Filled as Filled
    from .module_filling import fill_module as fill_module
    from .module_loading import load_module as load_module
    from .placing.device_map import DeviceMap as DeviceMap
    from .placing.max_memory import MaxMemory as MaxMemory
    from .progress import LoadProgress as LoadProgress
    from .progress import shown_on as shown_on
    from .reading.filling import Pace as Pace
    from .reading.mapped import map_tensors as map_tensors
    from .reading.private import read_tensors as read_tensors
    from .reading.stream import StreamedPiece as StreamedPiece
    from .reading.stream import StreamedTensor as StreamedTensor
    from .reading.stream import stream_pieces as stream_pieces
    from .reading.stream import stream_tensors as stream_tensors
    from .reading.tensor_file import TensorFile as TensorFile
    from .robust import load_safetensors_robust as load_safetensors_robust
    from .strategies.auto import Choice as Choice
    from .strategies.auto import Surroundings as Surroundings
    from .strategies.auto import choose_strategy as choose_strategy
    from .strategies.eager import EagerLoadingStrategy as EagerLoadingStrategy
    from .strategies.fast_single_file import FastSingleFileLoadingStrategy as FastSingleFileLoadingStrategy
    from .strategies.lazy import LazyLoadingStrategy as LazyLoadingStrategy
    from .strategies.parallel import ParallelLoadingStrategy as ParallelLoadingStrategy
    from .strategies.parallel_async_lazy import ParallelAsyncLazyLoadingStrategy as ParallelAsyncLazyLoadingStrategy
    from .strategies.registry import StrategyRegistry as StrategyRegistry
    from .strategies.strategy import Constraints as Constraints
    from .strategies.strategy import LoadingStrategy as LoadingStrategy
    from .strategies.strategy import LoadRequest as LoadRequest
    from .strategies.strategy import LoadResult as LoadResult
    from .strategies.streaming import StreamingLoadingStrategy as StreamingLoadingStrategy
    from .system.page_cache import drop_file as drop_file
    from .system.page_cache import resident_bytes as resident_bytes
    from .system.page_cache import warm_file as warm_file
    from .system.rate_limit import RateLimit as RateLimit
    from .telemetry import LoadingMetrics as LoadingMetrics
    from .tracking import GpuMemoryStats as GpuMemoryStats
    from .tracking import PerformanceTracker as PerformanceTracker
    from .tracking import StrategySummary as StrategySummary
    from .tracking import get_gpu_memory_stats as get_gpu_memory_stats
    from .tracking import log_memory_stats as log_memory_stats
    from .tracking import track_loading_performance as track_loading_performance
    from .transfer import DeviceTransfer as DeviceTransfer
    from .transfer import Upload as Upload
    from .upload.copy_device import CopyDevice as CopyDevice
    from .upload.copy_device import CopyEvent as CopyEvent
    from .upload.cuda_device import CudaDevice as CudaDevice
    from .upload.fake_device import FakeDevice as FakeDevice
    from .upload.packed_upload import UploadedPacked as UploadedPacked
    from .upload.packed_upload import upload_packed as upload_packed
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "batch": "LoadedBatch load_loras_batch load_loras_batch_async",
            "cached": "SafetensorsCache load_safetensors_cached",
            "errors": "LoadCancelledError NoCapableLoaderError PickledFileError SafetensorsLoadError "
            "SafetensorsValidationError",
            "files.header": "SafetensorsHeader read_header read_metadata",
            "files.pickled": "load_pickled",
            "files.shards": "ShardIndex check_shards read_index",
            "files.tensor_entry": "TensorEntry",
            "gguf.header": "GgufEntry GgufHeader read_gguf_header",
            "gguf.load": "LoadedGguf load_gguf",
            "gguf.metadata": "GgufArray",
            "gguf.on_numpy": "dequantise",
            "gguf.packed": "PackedTensor",
            "gguf.quant_types": "GgufType",
            "memory.host_memory": "available_bytes",
            "memory.spare_memory": "SpareMemory process_spare",
            "model_loader": "ModelLoader",
            "module_filling": "Filled fill_module",
            "module_loading": "load_module",
            "placing.device_map": "DeviceMap",
            "placing.max_memory": "MaxMemory",
            "progress": "LoadProgress shown_on",
            "reading.filling": "Pace",
            "reading.mapped": "map_tensors",
            "reading.private": "read_tensors",
            "reading.stream": "StreamedPiece StreamedTensor stream_pieces stream_tensors",
            "reading.tensor_file": "TensorFile",
            "robust": "load_safetensors_robust",
            "strategies.auto": "Choice Surroundings choose_strategy",
            "strategies.eager": "EagerLoadingStrategy",
            "strategies.fast_single_file": "FastSingleFileLoadingStrategy",
            "strategies.lazy": "LazyLoadingStrategy",
            "strategies.parallel": "ParallelLoadingStrategy",
            "strategies.parallel_async_lazy": "ParallelAsyncLazyLoadingStrategy",
            "strategies.registry": "StrategyRegistry",
            "strategies.strategy": "Constraints LoadRequest LoadResult LoadingStrategy",
            "strategies.streaming": "StreamingLoadingStrategy",
            "system.page_cache": "drop_file resident_bytes warm_file",
            "system.rate_limit": "RateLimit",
            "telemetry": "LoadingMetrics",
            "tracking": "GpuMemoryStats PerformanceTracker StrategySummary get_gpu_memory_stats log_memory_stats "
            "track_loading_performance",
            "transfer": "DeviceTransfer Upload",
            "upload.copy_device": "CopyDevice CopyEvent",
            "upload.cuda_device": "CudaDevice",
            "upload.fake_device": "FakeDevice",
            "upload.packed_upload": "UploadedPacked upload_packed",
        },
    )
