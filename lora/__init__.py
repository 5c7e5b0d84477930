"""What LoRA files mean: discovery, names, stacks, the byte-budgeted cache. See docs/architecture.md.

Names load their module when first used, so that whoever plans or looks up names never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .catalog import CatalogSnapshot, LoraCatalog
    from .errors import (
        AdapterLoadCancelledError,
        AdapterLoadError,
        AdapterUnavailableError,
        AmbiguousLoraError,
        BudgetExceededError,
        LoraError,
        LoraNotFoundError,
        LoraSyntaxError,
    )
    from .file import AdapterKey, LoraFile
    from .names import Ambiguous, Found, Missing
    from .row import LoraRow
    from .stack import LoraStack, parse_stack
    from .tags import extract_tags, format_tags

_MODULES = {
    "AdapterKey": "file",
    "AdapterLoadCancelledError": "errors",
    "AdapterLoadError": "errors",
    "AdapterUnavailableError": "errors",
    "Ambiguous": "names",
    "AmbiguousLoraError": "errors",
    "BudgetExceededError": "errors",
    "CatalogSnapshot": "catalog",
    "Found": "names",
    "LoraCatalog": "catalog",
    "LoraError": "errors",
    "LoraFile": "file",
    "LoraNotFoundError": "errors",
    "LoraRow": "row",
    "LoraStack": "stack",
    "LoraSyntaxError": "errors",
    "Missing": "names",
    "extract_tags": "tags",
    "format_tags": "tags",
    "parse_stack": "stack",
}

__all__ = [
    "AdapterKey",
    "AdapterLoadCancelledError",
    "AdapterLoadError",
    "AdapterUnavailableError",
    "Ambiguous",
    "AmbiguousLoraError",
    "BudgetExceededError",
    "CatalogSnapshot",
    "Found",
    "LoraCatalog",
    "LoraError",
    "LoraFile",
    "LoraNotFoundError",
    "LoraRow",
    "LoraStack",
    "LoraSyntaxError",
    "Missing",
    "extract_tags",
    "format_tags",
    "parse_stack",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
