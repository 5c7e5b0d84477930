"""What LoRA files mean: discovery, names, stacks, the byte-budgeted cache. See docs/architecture.md.

Names load their module when first used, so that whoever plans or looks up names never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapter import Adapter, load_adapter
    from .budget import ByteBudget, Reservation
    from .cache import AdapterCache
    from .cache_stats import AdapterView, CacheSnapshot, CacheStats
    from .catalog import CatalogSnapshot, LoraCatalog
    from .device_adapter import DeviceAdapter
    from .device_shelf import DeviceShelf
    from .device_tier import DeviceRefusedError, open_shelf
    from .errors import (
        AdapterLoadCancelledError,
        AdapterLoadError,
        AdapterUnavailableError,
        AmbiguousLoraError,
        LoraError,
        LoraNotFoundError,
        LoraSyntaxError,
    )
    from .file import AdapterKey, LoraFile
    from .fuse import PlainLora, add_fused_, fits
    from .lease import Lease
    from .memory import default_budget_bytes
    from .names import Ambiguous, Found, Missing
    from .policies import EvictionPolicy, Gdsf, Lfu, Lru, NextUse
    from .row import LoraRow
    from .stack import LoraStack, parse_stack
    from .tags import extract_tags, format_tags
    from .waits import Waits

_MODULES = {
    "Adapter": "adapter",
    "AdapterCache": "cache",
    "AdapterKey": "file",
    "AdapterLoadCancelledError": "errors",
    "AdapterLoadError": "errors",
    "AdapterUnavailableError": "errors",
    "AdapterView": "cache_stats",
    "Ambiguous": "names",
    "AmbiguousLoraError": "errors",
    "ByteBudget": "budget",
    "CacheSnapshot": "cache_stats",
    "CacheStats": "cache_stats",
    "CatalogSnapshot": "catalog",
    "EvictionPolicy": "policies",
    "DeviceAdapter": "device_adapter",
    "DeviceRefusedError": "device_tier",
    "DeviceShelf": "device_shelf",
    "Found": "names",
    "Gdsf": "policies",
    "Lease": "lease",
    "Lfu": "policies",
    "LoraCatalog": "catalog",
    "LoraError": "errors",
    "LoraFile": "file",
    "LoraNotFoundError": "errors",
    "LoraRow": "row",
    "LoraStack": "stack",
    "LoraSyntaxError": "errors",
    "Lru": "policies",
    "Missing": "names",
    "NextUse": "policies",
    "PlainLora": "fuse",
    "Reservation": "budget",
    "Waits": "waits",
    "add_fused_": "fuse",
    "default_budget_bytes": "memory",
    "extract_tags": "tags",
    "fits": "fuse",
    "format_tags": "tags",
    "load_adapter": "adapter",
    "open_shelf": "device_tier",
    "parse_stack": "stack",
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
