from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace

import pytest
import torch

from warmstack.loaders import (
    LoadingMetrics,
    LoadRequest,
    PerformanceTracker,
    StrategyRegistry,
    get_gpu_memory_stats,
    log_memory_stats,
    track_loading_performance,
)
from warmstack.loaders.telemetry import StageClock


def metrics(strategy: str, duration_s: float, loaded_bytes: int = 10, peak_bytes: int = 5) -> LoadingMetrics:
    return LoadingMetrics(strategy, 1, 2, loaded_bytes, peak_bytes, duration_s)


def test_summary_by_strategy():
    tracker = PerformanceTracker()
    for load in (metrics("eager", 1.0), metrics("eager", 3.0, 20, 50), metrics("eager", 2.0), metrics("lazy", 0.5)):
        tracker.record(load)
    assert tracker.summary() == {"eager": (3, 40, 2.0, 50, {}), "lazy": (1, 10, 0.5, 5, {})}


def test_the_stages_of_a_strategy_add_up():
    tracker = PerformanceTracker()
    for stages_s in ({"header": 0.25, "read": 1.0}, {"read": 2.0, "place": 0.5}):
        tracker.record(replace(metrics("eager", 3.0), stages_s=stages_s))
    assert tracker.summary()["eager"].stages_s == {"header": 0.25, "read": 3.0, "place": 0.5}


def test_only_the_last_loads_are_kept():
    tracker = PerformanceTracker(capacity=2)
    for seconds in (1.0, 2.0, 3.0):
        tracker.record(metrics("eager", seconds))
    assert [load.duration_s for load in tracker.loads] == [2.0, 3.0]


def test_a_tracked_block_is_timed_and_a_broken_one_is_not():
    ticks = iter([10.0, 12.5, 20.0])
    tracker = PerformanceTracker(clock=lambda: next(ticks))
    with tracker.track("merge"):
        pass
    with pytest.raises(KeyError), tracker.track("broken"):
        raise KeyError
    assert [(load.strategy, load.duration_s) for load in tracker.loads] == [("merge", 2.5)]


def test_threads_lose_nothing():
    tracker = PerformanceTracker(capacity=1000)
    threads = [
        threading.Thread(target=lambda: [tracker.record(metrics("eager", 1.0)) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.summary()["eager"].loads == 200


def test_decorated_load_keeps_its_own_metrics(saved, caplog):
    tracker = PerformanceTracker()

    @track_loading_performance(tracker=tracker)
    def load(path: str):
        """Load it."""
        return StrategyRegistry.default().strategies["eager"].load(LoadRequest((path,)))

    with caplog.at_level(logging.DEBUG, "warmstack.loaders.tracking"):
        result = load(saved)
    assert tracker.loads == (result.metrics,)
    assert load.__doc__ == "Load it."
    assert f"{len(result)} tensors" in caplog.text


def test_decorated_without_arguments_changes_nothing():
    @track_loading_performance
    def load() -> int:
        return 3

    assert load() == 3


async def test_decorated_coroutine():
    tracker = PerformanceTracker()

    @track_loading_performance(tracker=tracker)
    async def load() -> str:
        return "done"

    assert await load() == "done"
    assert tracker.loads[0].strategy.endswith("load")


async def test_what_is_awaited_later_is_tracked_until_then():
    tracker = PerformanceTracker()
    arrived: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @track_loading_performance(tracker=tracker)
    def load() -> asyncio.Future[str]:
        return arrived

    loading = load()
    assert tracker.loads == ()
    arrived.set_result("done")
    assert await loading == "done"
    assert len(tracker.loads) == 1


def test_a_failing_load_is_not_recorded():
    tracker = PerformanceTracker()

    @track_loading_performance(tracker=tracker)
    def load() -> None:
        raise OSError("on purpose")

    with pytest.raises(OSError, match="on purpose"):
        load()
    assert tracker.loads == ()


def test_stages_add_up():
    ticks = iter([0.0, 1.0, 3.0, 4.0, 4.5, 9.0])
    clock = StageClock(lambda: next(ticks))
    with clock.stage("read"):
        pass
    with clock.stage("read"):
        pass
    assert clock.stages_s == {"read": 2.5}
    assert clock.elapsed_s() == 9.0


def test_bytes_per_second():
    assert metrics("eager", 2.0, 10).bytes_per_s == 5.0
    assert metrics("eager", 0.0, 10).bytes_per_s == 0.0


def test_memory_line(caplog):
    with caplog.at_level(logging.INFO, "warmstack.loaders.tracking"):
        log_memory_stats("after load")
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("after load: process ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_there_is_nothing_to_tell_of_it():
    assert get_gpu_memory_stats() is None


@pytest.mark.gpu
def test_the_memory_of_a_gpu_adds_up():
    kept = torch.ones(1 << 20, device="cuda")
    stats = get_gpu_memory_stats()
    assert stats is not None
    assert kept.nbytes <= stats.allocated_bytes <= stats.reserved_bytes <= stats.total_bytes
