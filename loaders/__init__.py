"""Bytes on disk -> tensors. See docs/architecture.md.

Names load their module when first used, so that whoever needs headers or the page cache alone never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .auto import Choice, choose_strategy
    from .batch import LoadedBatch, load_loras_batch, load_loras_batch_async
    from .cached import SafetensorsCache, load_safetensors_cached
    from .device_map import DeviceMap
    from .eager import EagerLoadingStrategy
    from .errors import (
        LoadCancelledError,
        NoCapableLoaderError,
        PickledFileError,
        SafetensorsLoadError,
        SafetensorsValidationError,
    )
    from .fast_single_file import FastSingleFileLoadingStrategy
    from .filling import Pace
    from .header import SafetensorsHeader, TensorEntry, read_header, read_metadata
    from .lazy import LazyLoadingStrategy
    from .mapped import map_tensors
    from .page_cache import drop_file, resident_bytes, warm_file
    from .pickled import load_pickled
    from .private import read_tensors
    from .rate_limit import RateLimit
    from .registry import StrategyRegistry
    from .robust import load_safetensors_robust
    from .strategy import Constraints, LoadingStrategy, LoadRequest, LoadResult
    from .telemetry import LoadingMetrics
    from .tensor_file import TensorFile

_MODULES = {
    "Choice": "auto",
    "Constraints": "strategy",
    "DeviceMap": "device_map",
    "EagerLoadingStrategy": "eager",
    "FastSingleFileLoadingStrategy": "fast_single_file",
    "LazyLoadingStrategy": "lazy",
    "LoadCancelledError": "errors",
    "LoadRequest": "strategy",
    "LoadResult": "strategy",
    "LoadedBatch": "batch",
    "LoadingMetrics": "telemetry",
    "LoadingStrategy": "strategy",
    "NoCapableLoaderError": "errors",
    "Pace": "filling",
    "PickledFileError": "errors",
    "RateLimit": "rate_limit",
    "SafetensorsCache": "cached",
    "SafetensorsHeader": "header",
    "SafetensorsLoadError": "errors",
    "SafetensorsValidationError": "errors",
    "StrategyRegistry": "registry",
    "TensorEntry": "header",
    "TensorFile": "tensor_file",
    "choose_strategy": "auto",
    "drop_file": "page_cache",
    "load_loras_batch": "batch",
    "load_loras_batch_async": "batch",
    "load_pickled": "pickled",
    "load_safetensors_cached": "cached",
    "load_safetensors_robust": "robust",
    "map_tensors": "mapped",
    "read_header": "header",
    "read_metadata": "header",
    "read_tensors": "private",
    "resident_bytes": "page_cache",
    "warm_file": "page_cache",
}

__all__ = [
    "Choice",
    "Constraints",
    "DeviceMap",
    "EagerLoadingStrategy",
    "FastSingleFileLoadingStrategy",
    "LazyLoadingStrategy",
    "LoadCancelledError",
    "LoadRequest",
    "LoadResult",
    "LoadedBatch",
    "LoadingMetrics",
    "LoadingStrategy",
    "NoCapableLoaderError",
    "Pace",
    "PickledFileError",
    "RateLimit",
    "SafetensorsCache",
    "SafetensorsHeader",
    "SafetensorsLoadError",
    "SafetensorsValidationError",
    "StrategyRegistry",
    "TensorEntry",
    "TensorFile",
    "choose_strategy",
    "drop_file",
    "load_loras_batch",
    "load_loras_batch_async",
    "load_pickled",
    "load_safetensors_cached",
    "load_safetensors_robust",
    "map_tensors",
    "read_header",
    "read_metadata",
    "read_tensors",
    "resident_bytes",
    "warm_file",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
