"""Adapters of any size that weigh nothing: sparse files, loads that take no memory, a clock that ticks by itself."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from warmstack.loaders.reading.tensor_file import Storage
from warmstack.lora.cache.adapter import Adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.policies import EvictionPolicy
from warmstack.lora.library.file import LoraFile


class _Buffer(bytearray):
    """Weakly referable, as an mmap is."""


def load_nothing(file: LoraFile, *, storage: Storage, **_: object) -> Adapter:
    return Adapter(file.key, {}, {}, file.size_bytes, storage, _Buffer() if storage == "private" else None)


def sparse_file(folder: Path, name: str, size_bytes: int) -> LoraFile:
    path = folder / f"{name}.safetensors"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return LoraFile(name, str(path), size_bytes, os.stat(path).st_mtime_ns)


def make_cache(limit_bytes: int, policy: EvictionPolicy | None = None) -> tuple[AdapterCache, ByteBudget]:
    ticks = count(1.0)
    budget = ByteBudget(limit_bytes)
    return AdapterCache(budget, load=load_nothing, clock=lambda: next(ticks), policy=policy), budget
