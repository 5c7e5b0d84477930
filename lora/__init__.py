"""What LoRA files mean: discovery, names, stacks, the byte-budgeted cache. See docs/architecture.md.

Names load their module when first used, so that whoever plans or looks up names never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loaders.lazy_names import lazy_names

if TYPE_CHECKING:
    from .cache.adapter import Adapter as Adapter
    from .cache.adapter import load_adapter as load_adapter
    from .cache.budget import ByteBudget as ByteBudget
    from .cache.budget import Reservation as Reservation
    from .cache.cache import AdapterCache as AdapterCache
    from .cache.cache_stats import AdapterView as AdapterView
    from .cache.cache_stats import CacheSnapshot as CacheSnapshot
    from .cache.cache_stats import CacheStats as CacheStats
    from .cache.default_budget import default_budget_bytes as default_budget_bytes
    from .cache.lease import Lease as Lease
    from .cache.policies import EvictionPolicy as EvictionPolicy
    from .cache.policies import Gdsf as Gdsf
    from .cache.policies import Lfu as Lfu
    from .cache.policies import Lru as Lru
    from .cache.policies import NextUse as NextUse
    from .cache.waits import Waits as Waits
    from .device.device_adapter import DeviceAdapter as DeviceAdapter
    from .device.device_shelf import DeviceShelf as DeviceShelf
    from .device.device_tier import DeviceRefusedError as DeviceRefusedError
    from .device.device_tier import open_shelf as open_shelf
    from .errors import AdapterLoadCancelledError as AdapterLoadCancelledError
    from .errors import AdapterLoadError as AdapterLoadError
    from .errors import AdapterUnavailableError as AdapterUnavailableError
    from .errors import AmbiguousLoraError as AmbiguousLoraError
    from .errors import LoraError as LoraError
    from .errors import LoraNotFoundError as LoraNotFoundError
    from .errors import LoraSyntaxError as LoraSyntaxError
    from .fusing.fuse import PlainLora as PlainLora
    from .fusing.fuse import add_fused_ as add_fused_
    from .fusing.fuse import fits as fits
    from .library.catalog import CatalogSnapshot as CatalogSnapshot
    from .library.catalog import LoraCatalog as LoraCatalog
    from .library.file import AdapterKey as AdapterKey
    from .library.file import LoraFile as LoraFile
    from .library.name_index import Ambiguous as Ambiguous
    from .library.name_index import Found as Found
    from .library.name_index import Missing as Missing
    from .stacks.row import LoraRow as LoraRow
    from .stacks.stack import LoraStack as LoraStack
    from .stacks.stack import parse_stack as parse_stack
    from .stacks.tags import extract_tags as extract_tags
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cache.adapter": "Adapter load_adapter",
            "cache.budget": "ByteBudget Reservation",
            "cache.cache": "AdapterCache",
            "cache.cache_stats": "AdapterView CacheSnapshot CacheStats",
            "cache.default_budget": "default_budget_bytes",
            "cache.lease": "Lease",
            "cache.policies": "EvictionPolicy Gdsf Lfu Lru NextUse",
            "cache.waits": "Waits",
            "device.device_adapter": "DeviceAdapter",
            "device.device_shelf": "DeviceShelf",
            "device.device_tier": "DeviceRefusedError open_shelf",
            "errors": "AdapterLoadCancelledError AdapterLoadError AdapterUnavailableError AmbiguousLoraError LoraError "
            "LoraNotFoundError LoraSyntaxError",
            "fusing.fuse": "PlainLora add_fused_ fits",
            "library.catalog": "CatalogSnapshot LoraCatalog",
            "library.file": "AdapterKey LoraFile",
            "library.name_index": "Ambiguous Found Missing",
            "stacks.row": "LoraRow",
            "stacks.stack": "LoraStack parse_stack",
            "stacks.tags": "extract_tags",
        },
    )
