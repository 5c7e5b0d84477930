"""What LoRA files mean: discovery, names, stacks, the byte-budgeted cache. See docs/architecture.md.

Names load their module when first used, so that whoever plans or looks up names never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cache.adapter import Adapter, load_adapter
    from .cache.budget import ByteBudget, Reservation
    from .cache.cache import AdapterCache
    from .cache.cache_stats import AdapterView, CacheSnapshot, CacheStats
    from .cache.default_budget import default_budget_bytes
    from .cache.lease import Lease
    from .cache.policies import EvictionPolicy, Gdsf, Lfu, Lru, NextUse
    from .cache.waits import Waits
    from .device.device_adapter import DeviceAdapter
    from .device.device_shelf import DeviceShelf
    from .device.device_tier import DeviceRefusedError, open_shelf
    from .errors import (
        AdapterLoadCancelledError,
        AdapterLoadError,
        AdapterUnavailableError,
        AmbiguousLoraError,
        LoraError,
        LoraNotFoundError,
        LoraSyntaxError,
    )
    from .fusing.fuse import PlainLora, add_fused_, fits
    from .library.catalog import CatalogSnapshot, LoraCatalog
    from .library.file import AdapterKey, LoraFile
    from .library.name_index import Ambiguous, Found, Missing
    from .stacks.row import LoraRow
    from .stacks.stack import LoraStack, parse_stack
    from .stacks.tags import extract_tags, format_tags

_MODULES = {
    "Adapter": "cache.adapter",
    "AdapterCache": "cache.cache",
    "AdapterKey": "library.file",
    "AdapterLoadCancelledError": "errors",
    "AdapterLoadError": "errors",
    "AdapterUnavailableError": "errors",
    "AdapterView": "cache.cache_stats",
    "Ambiguous": "library.name_index",
    "AmbiguousLoraError": "errors",
    "ByteBudget": "cache.budget",
    "CacheSnapshot": "cache.cache_stats",
    "CacheStats": "cache.cache_stats",
    "CatalogSnapshot": "library.catalog",
    "EvictionPolicy": "cache.policies",
    "DeviceAdapter": "device.device_adapter",
    "DeviceRefusedError": "device.device_tier",
    "DeviceShelf": "device.device_shelf",
    "Found": "library.name_index",
    "Gdsf": "cache.policies",
    "Lease": "cache.lease",
    "Lfu": "cache.policies",
    "LoraCatalog": "library.catalog",
    "LoraError": "errors",
    "LoraFile": "library.file",
    "LoraNotFoundError": "errors",
    "LoraRow": "stacks.row",
    "LoraStack": "stacks.stack",
    "LoraSyntaxError": "errors",
    "Lru": "cache.policies",
    "Missing": "library.name_index",
    "NextUse": "cache.policies",
    "PlainLora": "fusing.fuse",
    "Reservation": "cache.budget",
    "Waits": "cache.waits",
    "add_fused_": "fusing.fuse",
    "default_budget_bytes": "cache.default_budget",
    "extract_tags": "stacks.tags",
    "fits": "fusing.fuse",
    "format_tags": "stacks.tags",
    "load_adapter": "cache.adapter",
    "open_shelf": "device.device_tier",
    "parse_stack": "stacks.stack",
}

__all__ = [
    "Adapter",
    "AdapterCache",
    "AdapterKey",
    "AdapterLoadCancelledError",
    "AdapterLoadError",
    "AdapterUnavailableError",
    "AdapterView",
    "Ambiguous",
    "AmbiguousLoraError",
    "ByteBudget",
    "CacheSnapshot",
    "CacheStats",
    "CatalogSnapshot",
    "DeviceAdapter",
    "DeviceRefusedError",
    "DeviceShelf",
    "EvictionPolicy",
    "Found",
    "Gdsf",
    "Lease",
    "Lfu",
    "LoraCatalog",
    "LoraError",
    "LoraFile",
    "LoraNotFoundError",
    "LoraRow",
    "LoraStack",
    "LoraSyntaxError",
    "Lru",
    "Missing",
    "NextUse",
    "PlainLora",
    "Reservation",
    "Waits",
    "add_fused_",
    "default_budget_bytes",
    "extract_tags",
    "fits",
    "format_tags",
    "load_adapter",
    "open_shelf",
    "parse_stack",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
