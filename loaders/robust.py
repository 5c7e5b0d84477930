"""load_safetensors_robust: one safetensors file, any strategy, blocking or awaitable."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal, overload

import torch

from .cancelling import Cancelled
from .in_thread import run_in_thread
from .memory.spare_memory import process_spare
from .placing.device_map import DISK, DeviceMap, known_device
from .reading.filling import Pace
from .reading.opened import OpenFiles
from .strategies.auto import Choice, choose_strategy
from .strategies.registry import StrategyRegistry
from .strategies.strategy import LoadRequest, LoadResult
from .telemetry import LoadingMetrics

Device = str | int | torch.device
PathLike = str | os.PathLike[str]


@overload
def load_safetensors_robust(
    path: PathLike,
    device: Device = ...,
    device_map: Mapping[str, object] | None = ...,
    strategy: str = ...,
    use_async: Literal[False] = ...,
    *,
    dtype: torch.dtype | None = ...,
    measured: Callable[[LoadingMetrics], None] | None = ...,
) -> dict[str, torch.Tensor]: ...


@overload
def load_safetensors_robust(
    path: PathLike,
    device: Device = ...,
    device_map: Mapping[str, object] | None = ...,
    strategy: str = ...,
    *,
    use_async: Literal[True],
    dtype: torch.dtype | None = ...,
    measured: Callable[[LoadingMetrics], None] | None = ...,
) -> Awaitable[dict[str, torch.Tensor]]: ...


def load_safetensors_robust(
    path: PathLike,
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    use_async: bool = False,
    *,
    dtype: torch.dtype | None = None,
    measured: Callable[[LoadingMetrics], None] | None = None,
) -> dict[str, torch.Tensor] | Awaitable[dict[str, torch.Tensor]]:
    """The tensors of `path`, each on its device.

    `device_map` maps key prefixes to devices (see DeviceMap); `device` is for the tensors it says nothing about.
    `use_async=True` returns an awaitable instead, which loads in one thread and stops between two chunks when it is
    cancelled. `measured` is told what the load cost. Every failure to load is a SafetensorsLoadError; a device, a dtype
    or a strategy that does not exist is a ValueError."""
    request = request_for([path], device, device_map, dtype)

    def load(cancelled: Cancelled | None = None) -> dict[str, torch.Tensor]:
        result = load_request(replace(request, pace=Pace(cancelled)), strategy)
        if measured is not None:
            measured(result.metrics)
        return result.tensors

    return run_in_thread(load) if use_async else load()


def request_for(
    paths: Sequence[PathLike], device: Device, device_map: Mapping[str, object] | None, dtype: torch.dtype | None
) -> LoadRequest:
    """ValueError for choices that no file could be loaded by."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"{dtype!r} is no floating-point dtype; give one like torch.float16")
    rules = None if device_map is None else DeviceMap.of(device_map)
    for _, place in () if rules is None else rules.rules:
        if place != DISK:
            known_device(place)
    files = tuple(os.fspath(path) for path in paths)
    return LoadRequest(files, known_device(device), rules, dtype, spare=process_spare())


def load_request(request: LoadRequest, strategy: str, registry: StrategyRegistry | None = None) -> LoadResult:
    """`request` by the strategy of that name, or by the one that `auto` chooses. Each file is opened once, for its
    header, for what `auto` asks and for its data."""
    registry = StrategyRegistry.default() if registry is None else registry
    with ExitStack() as stack:
        if request.opened is None:
            request = replace(request, opened=stack.enter_context(OpenFiles()))
        if strategy == "auto":
            choice = choose_strategy(registry, request)
        else:
            choice = Choice(registry.require(strategy, request), ())
        return replace(choice.strategy.load(request), reasons=choice.reasons)
