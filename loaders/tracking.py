"""Keeping an eye on loads: who loaded what how fast, and what the memory looks like."""

from __future__ import annotations

import functools
import inspect
import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psutil

from .memory.host_memory import available_bytes
from .memory.spare_memory import process_spare
from .strategies.strategy import LoadResult
from .telemetry import LoadingMetrics, added_up

logger = logging.getLogger(__name__)
_MIB = 1 << 20
F = TypeVar("F", bound=Callable[..., Any])


class StrategySummary(NamedTuple):
    """The tracked loads of one strategy."""

    loads: int
    loaded_bytes: int
    median_s: float
    peak_bytes: int
    stages_s: Mapping[str, float]
    """Seconds by stage, of all the loads together."""


class PerformanceTracker:
    """The last `capacity` loads. Thread-safe; the status route shows its `summary()`."""

    def __init__(self, capacity: int = 256, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._loads: deque[LoadingMetrics] = deque(maxlen=capacity)

    def record(self, metrics: LoadingMetrics) -> None:
        """Count one finished load; the oldest beyond the capacity is forgotten."""
        with self._lock:
            self._loads.append(metrics)

    @contextmanager
    def track(self, name: str) -> Iterator[None]:
        """Record the block as one load called `name`, of which only the time is known; a block that raises is not
        one."""
        started_s = self._clock()
        yield
        self.record(LoadingMetrics(name, 0, 0, 0, 0, self._clock() - started_s))

    @property
    def loads(self) -> tuple[LoadingMetrics, ...]:
        with self._lock:
            return tuple(self._loads)

    def summary(self) -> dict[str, StrategySummary]:
        """strategy -> its tracked loads."""
        by_strategy: dict[str, list[LoadingMetrics]] = {}
        for load in self.loads:
            by_strategy.setdefault(load.strategy, []).append(load)
        return {
            name: StrategySummary(
                len(loads),
                sum(load.loaded_bytes for load in loads),
                statistics.median(load.duration_s for load in loads),
                max(load.peak_bytes for load in loads),
                added_up(load.stages_s for load in loads),
            )
            for name, loads in by_strategy.items()
        }


def track_loading_performance(
    function: F | None = None, *, tracker: PerformanceTracker | None = None
) -> F | Callable[[F], F]:
    """Decorator for a loading function, blocking or async: one DEBUG line per call, and a record in `tracker`, when its
    result is there. A call that raises is not recorded.

    What returns a LoadResult is recorded with its own metrics, anything else with its name and its time."""

    def decorate(function: F) -> F:
        def finish(outcome: object, started_s: float) -> None:
            name = function.__qualname__
            metrics = outcome.metrics if isinstance(outcome, LoadResult) else None
            metrics = metrics or LoadingMetrics(name, 0, 0, 0, 0, time.perf_counter() - started_s)
            logger.debug("%s: %d tensors in %.3f s (%s)", name, metrics.tensors, metrics.duration_s, metrics.strategy)
            if tracker is not None:
                tracker.record(metrics)

        async def arrival(loading: Awaitable[Any], started_s: float) -> Any:
            outcome = await loading
            finish(outcome, started_s)
            return outcome

        @functools.wraps(function)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            started_s = time.perf_counter()
            outcome = function(*args, **kwargs)
            if inspect.isawaitable(outcome):
                return arrival(outcome, started_s)
            finish(outcome, started_s)
            return outcome

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await arrival(function(*args, **kwargs), time.perf_counter())

        return awaited if inspect.iscoroutinefunction(function) else blocking  # type: ignore[return-value]  # called as `function` is

    return decorate if function is None else decorate(function)


class GpuMemoryStats(NamedTuple):
    """One CUDA device, in bytes."""

    device: str
    allocated_bytes: int
    """Held by tensors of this process."""
    reserved_bytes: int
    """Held by torch's allocator, tensors included."""
    peak_allocated_bytes: int
    free_bytes: int
    """By the driver: what any process may still take."""
    total_bytes: int


def get_gpu_memory_stats(device: int | None = None) -> GpuMemoryStats | None:
    """The memory of a CUDA device, the current one by default; None where there is no CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    index = torch.cuda.current_device() if device is None else device
    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    return GpuMemoryStats(
        f"cuda:{index}",
        torch.cuda.memory_allocated(index),
        torch.cuda.memory_reserved(index),
        torch.cuda.max_memory_allocated(index),
        free_bytes,
        total_bytes,
    )


def log_memory_stats(label: str, *, log: logging.Logger = logger, level: int = logging.INFO) -> None:
    """One line: what this process holds, and keeps of it for later loads, what the host or its container has left, the
    same of a GPU."""
    held_bytes, free_bytes = psutil.Process().memory_info().rss, available_bytes()
    kept_bytes = process_spare().held_bytes
    kept = f" ({kept_bytes // _MIB} of them kept for later loads)" if kept_bytes else ""
    gpu = get_gpu_memory_stats()
    on_gpu = f"; {gpu.device} {gpu.allocated_bytes // _MIB} MiB, {gpu.free_bytes // _MIB} MiB free" if gpu else ""
    log.log(
        level, "%s: process %d MiB%s, host %d MiB free%s", label, held_bytes // _MIB, kept, free_bytes // _MIB, on_gpu
    )
