"""`auto`: the strategy for a request, from stated facts, with its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

from .errors import NoCapableLoaderError
from .opened import stamp_path
from .registry import StrategyRegistry
from .strategy import LoadingStrategy, LoadRequest

_LARGE_BYTES = 64 << 20
"""Where a few threads begin to pay for being started, on 2 cores."""
_MEMORY_SHARE = 0.8
"""Of the free memory, that a load may take; the rest is for whoever uses the tensors."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy taken and why."""

    strategy: LoadingStrategy
    reasons: tuple[str, ...]


def choose_strategy(
    registry: StrategyRegistry, request: LoadRequest, *, free_bytes: Callable[[], int] | None = None
) -> Choice:
    """The first of these that can do `request`, else any that can; NoCapableLoaderError with every refusal when none
    can.

    1. the device map leaves tensors on disk: `lazy`, which does not read them;
    2. the files take more than 80% of the free memory: `lazy`, whose pages the kernel can take back;
    3. one file of 64 MiB or more: `fast_single_file`;
    4. else `eager`."""
    refusals = registry.refusals(request)
    if len(refusals) == len(registry.strategies):
        raise NoCapableLoaderError(request.paths[0] if request.paths else "", refusals)
    for name, reason in _preferences(request, free_bytes or _free_bytes):
        if name in registry.strategies and name not in refusals:
            return Choice(registry.strategies[name], (reason,))
    left = next(strategy for name, strategy in registry.strategies.items() if name not in refusals)
    return Choice(left, ("the preferred ones refused",))


def _preferences(request: LoadRequest, free_bytes: Callable[[], int]) -> list[tuple[str, str]]:
    if request.device_map is not None and request.device_map.keeps_on_disk:
        return [("lazy", "the device map leaves tensors on disk")]
    size_bytes = sum(stamp_path(path).size_bytes for path in request.paths)
    available_bytes = free_bytes()
    if size_bytes > available_bytes * _MEMORY_SHARE:
        return [("lazy", f"{size_bytes} bytes do not fit into {available_bytes} bytes of free memory")]
    if len(request.paths) == 1 and size_bytes >= _LARGE_BYTES:
        return [("fast_single_file", f"one file of {size_bytes} bytes")]
    return [("eager", f"{len(request.paths)} files of {size_bytes} bytes together")]


def _free_bytes() -> int:
    return psutil.virtual_memory().available
