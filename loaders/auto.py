"""`auto`: the strategy for a request, from stated facts, with its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

from .device_map import DISK
from .disk_kind import DiskKind, disk_kind
from .errors import NoCapableLoaderError
from .opened import stamp_path
from .page_cache import resident_bytes
from .registry import StrategyRegistry
from .strategy import LoadingStrategy, LoadRequest

_LARGE_BYTES = 64 << 20
"""Where a few threads begin to pay for being started, on 2 cores."""
_CACHED_SHARE = 0.9
"""From here on it hardly matters what disk is under the page cache."""
_MEMORY_SHARE = 0.8
"""Of the free memory, that a load may take; the rest is for whoever uses the tensors."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The strategy taken and why."""

    strategy: LoadingStrategy
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the choice asks the machine. Tests answer themselves."""

    free_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available)
    disk_kind: Callable[[str], DiskKind] = disk_kind
    cached_bytes: Callable[[str], int | None] = resident_bytes


def choose_strategy(
    registry: StrategyRegistry, request: LoadRequest, surroundings: Surroundings | None = None
) -> Choice:
    """The first rule whose strategy can do `request`; NoCapableLoaderError with every refusal when none can.

    1. files larger than 80% of the free memory: `streaming` when all of it is cast or leaves the CPU, else `lazy`,
    whose pages the kernel can take back; 2. `low_memory`, and tensors are cast or leave the CPU: `streaming`; 3. the
    device map leaves tensors on disk: `parallel_async_lazy`; 4. one file of 64 MiB or more: `fast_single_file`; 5.
    several files of 64 MiB or more together, not on a rotating or network disk: `parallel`; 6. else `eager`."""
    refusals = registry.refusals(request)
    if len(refusals) == len(registry.strategies):
        raise NoCapableLoaderError(request.paths[0] if request.paths else "", refusals)
    name, reason = _preference(request, surroundings or Surroundings())
    if name in registry.strategies and name not in refusals:
        return Choice(registry.strategies[name], (reason,))
    left = next(strategy for name, strategy in registry.strategies.items() if name not in refusals)
    why_not = refusals.get(name, "not registered")
    return Choice(left, (reason, f"{name} refused: {why_not}"))


def _preference(request: LoadRequest, surroundings: Surroundings) -> tuple[str, str]:
    size_bytes = sum(stamp_path(path).size_bytes for path in request.paths)
    free_bytes = surroundings.free_bytes()
    if size_bytes > free_bytes * _MEMORY_SHARE:
        name = "streaming" if _leaves_host(request) else "lazy"
        return name, f"{size_bytes} bytes do not fit into {free_bytes} bytes of free memory"
    if request.low_memory and request.copies:
        return "streaming", "low_memory, and tensors are cast or leave the CPU"
    if request.device_map is not None and request.device_map.keeps_on_disk:
        return "parallel_async_lazy", "the device map leaves tensors on disk"
    return _by_size(request.paths, size_bytes, surroundings)


def _by_size(paths: tuple[str, ...], size_bytes: int, surroundings: Surroundings) -> tuple[str, str]:
    if size_bytes < _LARGE_BYTES:
        return "eager", f"only {size_bytes} bytes"
    if len(paths) == 1:
        return "fast_single_file", f"one file of {size_bytes} bytes"
    kind = surroundings.disk_kind(paths[0])
    if kind in ("rotating", "network"):
        cached_bytes = sum(surroundings.cached_bytes(path) or 0 for path in paths)
        if cached_bytes < size_bytes * _CACHED_SHARE:
            return "eager", f"{len(paths)} files on a {kind} disk, which several readers slow down"
    return "parallel", f"{len(paths)} files of {size_bytes} bytes together"


def _leaves_host(request: LoadRequest) -> bool:
    """True when nothing that is loaded stays in host memory."""
    rules = () if request.device_map is None else request.device_map.rules
    devices = {device for prefix, device in rules} | (set() if any(not p for p, _ in rules) else {request.device})
    return "cpu" not in devices - {DISK}
