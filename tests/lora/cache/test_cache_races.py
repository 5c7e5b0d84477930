"""Forced interleavings of AdapterCache: who joins whom, who survives a cancel, who wakes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.lease import Lease
from warmstack.lora.errors import AdapterLoadCancelledError
from warmstack.lora.library.file import LoraFile

from ..cache_kit import DEADLINE_S, Background, Disk, House


def test_a_demand_joins_the_prefetch_in_flight(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    house.load.let_go(file.name)
    assert prefetch.result() == "ready"
    assert demand.result().outcome == "join"
    assert house.load.loads[file.key] == 1
    stats = house.cache.stats()
    assert (stats.hits, stats.joins, stats.misses) == (0, 1, 0)


def test_who_joins_or_leaves_a_load_is_a_change_that_snapshots_show(house: House) -> None:
    """A status compares snapshots by their revision alone."""
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    seen = [house.cache.snapshot()]
    demand = house.acquire(file)
    seen.append(house.cache.snapshot())
    demand.cancel.set()
    with pytest.raises(AdapterLoadCancelledError):
        demand.result()
    seen.append(house.cache.snapshot())
    assert [view.waiting for snapshot in seen for view in snapshot.adapters] == [0, 1, 0]
    assert seen[0].revision < seen[1].revision < seen[2].revision
    house.load.let_go(file.name)
    assert prefetch.result() == "ready"


def test_two_demands_share_one_load(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    calls = [house.acquire(file) for _ in range(3)]
    house.load.let_go(file.name)
    leases = [call.result() for call in calls]
    assert sorted(lease.outcome for lease in leases) == ["join", "join", "miss"]
    assert len({id(lease.adapter) for lease in leases}) == 1
    assert house.load.loads[file.key] == 1


def test_a_demand_survives_the_cancel_of_the_prefetch_it_joined(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    prefetch.cancel.set()
    house.load.let_go(file.name)
    assert house.disk.holds_content(demand.result().adapter)
    assert prefetch.result() == "ready"
    assert house.load.loads[file.key] == 1


def test_a_waiter_restarts_a_load_that_was_abandoned_under_it(house: House) -> None:
    """The prefetch notices its cancel in the very chunk in which the demand joins."""
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    house.load.next_errors = [AdapterLoadCancelledError(file.name, "cancelled")]
    house.load.let_go(file.name)
    assert prefetch.result() == "cancelled"
    assert demand.result().outcome == "miss"
    assert house.load.loads[file.key] == 2


def test_a_cancelled_prefetch_stops_reading_and_keeps_nothing(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    prefetch.cancel.set()
    assert prefetch.result() == "cancelled"
    assert house.states() == {}
    assert house.budget.used_bytes == 0


def test_a_cancelled_waiter_leaves_while_the_load_goes_on(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    demand.cancel.set()
    with pytest.raises(AdapterLoadCancelledError, match=r"a\.safetensors"):
        demand.result()
    house.load.let_go(file.name)
    assert prefetch.result() == "ready"
    view = house.cache.snapshot().adapters[0]
    assert (view.state, view.leases, view.waiting) == ("ready", 0, 0)
    house.cache.clear()
    assert demand.error is not None
    assert house.budget.used_bytes == 0, "the traceback of the one who gave up keeps nothing"


def test_when_everybody_has_cancelled_the_load_stops(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    demand.cancel.set()
    prefetch.cancel.set()
    assert prefetch.result() == "cancelled"
    with pytest.raises(AdapterLoadCancelledError):
        demand.result()


def test_a_leading_demand_that_cancels_still_loads_for_the_others(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    leader = house.acquire(file)
    follower = house.acquire(file)
    leader.cancel.set()
    house.load.let_go(file.name)
    assert follower.result().adapter is leader.result().adapter


def test_an_unforeseen_error_wakes_the_waiters(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    leader = house.acquire(file)
    follower = house.acquire(file)
    house.load.next_errors = [ZeroDivisionError()]
    house.load.let_go(file.name)
    with pytest.raises(ZeroDivisionError):
        leader.result()
    assert house.disk.holds_content(follower.result().adapter)
    assert house.budget.used_bytes == file.size_bytes


def test_evicting_what_is_being_loaded_is_refused(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    demand = house.acquire(file)
    assert not house.cache.evict(file.key)
    house.cache.clear()
    house.load.let_go(file.name)
    assert house.disk.holds_content(demand.result().adapter)


def test_room_for_a_demand_is_not_made_from_an_adapter_whose_joiner_has_not_woken(house: House) -> None:
    """Landing and leasing are one step: otherwise the adapter could be taken between the two."""
    file, other = house.disk.write("a.safetensors"), house.disk.write("b.safetensors")
    house.cache.resize(file.size_bytes)
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demand = house.acquire(file)
    house.load.let_go(file.name)
    assert prefetch.result() == "ready"
    assert house.cache.acquire(other).adapter.storage == "mapped"
    assert demand.result().adapter.storage == "private"
    assert house.cache.stats().evictions == {}


def test_a_dropped_lease_ends_without_taking_a_lock(tmp_path: Path) -> None:
    """The garbage collector may run in a thread that holds the lock of the cache: the clock stands in for it here."""
    disk = Disk(tmp_path)
    file = disk.write("a.safetensors")
    kept: list[Lease] = []
    ticks: list[int] = []

    def clock() -> float:
        ticks.append(len(ticks))
        if len(ticks) > leased_at:
            kept.clear()
        return 0.0

    cache = AdapterCache(ByteBudget(1 << 20), clock=clock)
    leased_at = 1000
    kept.append(cache.acquire(file))
    # The first tick of an acquire starts its wait, outside the lock; the second ends it, inside.
    leased_at = len(ticks) + 1
    second = Background(lambda cancelled: cache.acquire(file, cancelled=cancelled)).result()
    assert kept == []
    assert [view.leases for view in cache.snapshot().adapters] == [1]
    second.release()
    second.release()
    assert [view.leases for view in cache.snapshot().adapters] == [0]
    with pytest.raises(RuntimeError, match="released"):
        _ = second.adapter


def test_a_demand_lifts_the_rate_limit_of_the_prefetch_it_joins(house: House) -> None:
    """The clock of the limiter stands still: only a demand can end its wait."""
    file = house.disk.write("a.safetensors")
    sleeping = threading.Event()

    def sleep(seconds: float) -> None:
        sleeping.set()
        time.sleep(0.001)

    limiter = RateLimit(1.0, clock=lambda: 0.0, sleep=sleep)
    prefetch = house.prefetch(file, limiter)
    assert sleeping.wait(DEADLINE_S)
    assert not prefetch.done
    assert house.acquire(file).result().outcome == "join"
    assert prefetch.result() == "ready"


def race(house: House, files: list[LoraFile], rounds: int) -> Callable[[int], None]:
    def run(seed: int) -> None:
        for step in range(rounds):
            file = files[(seed * 7 + step * (seed + 1)) % len(files)]
            if (seed + step) % 3 == 0:
                house.cache.prefetch(file)
            elif (seed + step) % 7 == 0:
                house.cache.evict(file.key)
            else:
                with house.cache.acquire(file) as lease:
                    assert house.disk.holds_content(lease.adapter)

    return run


def test_many_threads_at_once_never_pass_the_limit_nor_load_one_file_twice(house: House) -> None:
    files = [house.disk.write(f"{index}.safetensors") for index in range(6)]
    house.cache.resize(3 * files[0].size_bytes)
    house.cache.plan_uses({file.key: index for index, file in enumerate(files)})
    run = race(house, files, 60)
    calls = [Background(lambda _, seed=seed: run(seed)) for seed in range(6)]
    for call in calls:
        call.result()
    assert house.budget.peak_bytes <= house.budget.limit_bytes
    assert house.load.most_active == 1
    house.cache.clear()
    assert house.budget.used_bytes == house.load.live_bytes == 0
    assert math.isclose(sum(house.load.active.values()), 0)
