"""`auto`: the strategy for a request, from stated facts, with its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import NoCapableLoaderError
from ..memory.host_memory import available_bytes
from ..placing.footprint import footprint
from ..reading.direct import CACHED_SHARE
from ..system.disk_kind import DiskKind, disk_kind
from ..system.page_cache import about_resident_bytes
from .registry import StrategyRegistry
from .strategy import LoadingStrategy, LoadRequest

_LARGE_BYTES = 64 << 20
"""Where a few threads begin to pay for being started, on 2 cores."""
_SLOW_KINDS = ("rotating", "network")
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

    free_bytes: Callable[[], int] = available_bytes
    disk_kind: Callable[[str], DiskKind] = disk_kind
    cached_bytes: Callable[[str], int | None] = about_resident_bytes

    @classmethod
    def of(cls, request: LoadRequest) -> Surroundings:
        """This machine's, asked through the files that `request` has open."""
        return cls(cached_bytes=lambda path: about_resident_bytes(path, opened=request.opened))


def choose_strategy(
    registry: StrategyRegistry, request: LoadRequest, surroundings: Surroundings | None = None
) -> Choice:
    """The first rule whose strategy can do `request`; NoCapableLoaderError with every refusal when none can.

    1. what has to be in private memory at once, copies included, is more than 80% of the free memory: `streaming` when
    every tensor is cast or leaves the CPU, else `lazy`, whose pages the kernel can take back; 2. `low_memory`, and
    tensors are cast or leave the CPU: `streaming`; 3. the device map leaves tensors on disk: `parallel_async_lazy`; 4.
    less than 64 MiB: `eager`; 5. less than 90% of it in the page cache, on a rotating or network disk: `eager`, whose
    one reader such a disk takes best; 6. one file: `fast_single_file`; 7. several: `parallel`."""
    refusals = registry.refusals(request)
    if len(refusals) == len(registry.strategies):
        raise NoCapableLoaderError(request.paths[0] if request.paths else "", refusals)
    name, reasons = _preference(request, surroundings or Surroundings.of(request))
    if name in registry.strategies and name not in refusals:
        return Choice(registry.strategies[name], reasons)
    left = next(strategy for name, strategy in registry.strategies.items() if name not in refusals)
    why_not = refusals.get(name, "not registered")
    return Choice(left, (*reasons, f"{name} refused: {why_not}"))


def _preference(request: LoadRequest, surroundings: Surroundings) -> tuple[str, tuple[str, ...]]:
    """A strategy and its reasons, the deciding one first."""
    needs, free_bytes = footprint(request), surroundings.free_bytes()
    if needs.host_bytes > free_bytes * _MEMORY_SHARE:
        name = "lazy" if needs.kept_bytes else "streaming"
        return name, (
            f"{needs.host_bytes} bytes are more than {_MEMORY_SHARE:.0%} of {free_bytes} bytes of free memory",
        )
    if request.low_memory and request.copies:
        return "streaming", ("low_memory, and tensors are cast or leave the CPU",)
    if request.device_map is not None and request.device_map.keeps_on_disk:
        return "parallel_async_lazy", ("the device map leaves tensors on disk",)
    if needs.read_bytes < _LARGE_BYTES:
        return "eager", (f"only {needs.read_bytes} bytes",)
    return _by_disk(request.paths, needs.read_bytes, surroundings)


def _by_disk(paths: tuple[str, ...], size_bytes: int, surroundings: Surroundings) -> tuple[str, tuple[str, ...]]:
    kind = surroundings.disk_kind(paths[0])
    known_bytes = [surroundings.cached_bytes(path) for path in paths]
    cached_bytes = sum(nbytes or 0 for nbytes in known_bytes)
    share = "an unknown share" if None in known_bytes else f"{min(1.0, cached_bytes / size_bytes):.0%}"
    facts = (f"{share} of it in the page cache", f"{kind} disk")
    files = "one file" if len(paths) == 1 else f"{len(paths)} files"
    if kind in _SLOW_KINDS and cached_bytes < size_bytes * CACHED_SHARE:
        return "eager", (f"{files} on a {kind} disk, which several readers slow down", *facts)
    name = "fast_single_file" if len(paths) == 1 else "parallel"
    return name, (f"{files} of {size_bytes} bytes" + ("" if len(paths) == 1 else " together"), *facts)
