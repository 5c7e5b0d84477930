"""Bytes on disk -> tensors. See docs/architecture.md.

Names load their module when first used, so that whoever needs headers or the page cache alone never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        LoadCancelledError,
        NoCapableLoaderError,
        PickledFileError,
        SafetensorsLoadError,
        SafetensorsValidationError,
    )
    from .header import SafetensorsHeader, TensorEntry, read_header, read_metadata
    from .mapped import map_tensors
    from .page_cache import drop_file, resident_bytes, warm_file
    from .pickled import load_pickled
    from .private import read_tensors
    from .rate_limit import RateLimit
    from .tensor_file import TensorFile

_MODULES = {
    "LoadCancelledError": "errors",
    "NoCapableLoaderError": "errors",
    "PickledFileError": "errors",
    "RateLimit": "rate_limit",
    "SafetensorsHeader": "header",
    "SafetensorsLoadError": "errors",
    "SafetensorsValidationError": "errors",
    "TensorEntry": "header",
    "TensorFile": "tensor_file",
    "drop_file": "page_cache",
    "load_pickled": "pickled",
    "map_tensors": "mapped",
    "read_header": "header",
    "read_metadata": "header",
    "read_tensors": "private",
    "resident_bytes": "page_cache",
    "warm_file": "page_cache",
}

__all__ = [
    "LoadCancelledError",
    "NoCapableLoaderError",
    "PickledFileError",
    "RateLimit",
    "SafetensorsHeader",
    "SafetensorsLoadError",
    "SafetensorsValidationError",
    "TensorEntry",
    "TensorFile",
    "drop_file",
    "load_pickled",
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
