"""Forced interleavings of AdapterCache: who joins whom, who survives a cancel, who wakes, and what is never taken."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from warmstack.loaders.rate_limit import RateLimit
from warmstack.lora.budget import ByteBudget
from warmstack.lora.cache import AdapterCache, PrefetchOutcome
from warmstack.lora.errors import AdapterLoadCancelledError, AdapterLoadError, AdapterUnavailableError
from warmstack.lora.file import LoraFile
from warmstack.lora.lease import Lease

from .cache_kit import DEADLINE_S, Background, Disk, GatedLoad, wait_until


@dataclass
class House:
    disk: Disk
    load: GatedLoad
    budget: ByteBudget
    cache: AdapterCache

    def acquire(self, file: LoraFile) -> Background[Lease]:
        """Returns once the acquire leads a load, waits for one, or is over."""
        before = self.load.loads[file.key], self.waiting(file)
        call = Background(lambda cancelled: self.cache.acquire(file, cancelled=cancelled))
        wait_until(lambda: call.done or (self.load.loads[file.key], self.waiting(file)) > before)
        return call

    def prefetch(self, file: LoraFile, limiter: RateLimit | None = None) -> Background[PrefetchOutcome]:
        before = self.load.loads[file.key]
        call = Background(lambda cancelled: self.cache.prefetch(file, cancelled=cancelled, limiter=limiter))
        wait_until(lambda: call.done or self.load.loads[file.key] > before)
        return call

    def waiting(self, file: LoraFile) -> int:
        return sum(view.waiting for view in self.cache.snapshot().adapters if view.key == file.key)

    def states(self) -> dict[str, str]:
        return {view.name: view.state for view in self.cache.snapshot().adapters}


@pytest.fixture
def house(tmp_path: Path) -> House:
    load, budget = GatedLoad(), ByteBudget(1 << 20)
    return House(Disk(tmp_path), load, budget, AdapterCache(budget, load=load))


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


def test_a_failure_wakes_everybody_and_is_remembered_until_the_file_changes(house: House) -> None:
    file = house.disk.write_garbage("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demands = [house.acquire(file) for _ in range(2)]
    house.load.let_go(file.name)
    assert prefetch.result() == "failed"
    errors = []
    for demand in demands:
        with pytest.raises(AdapterLoadError, match=r"'a.safetensors' cannot be loaded") as caught:
            demand.result()
        errors.append(caught.value)
    assert errors[0] is not errors[1], "a shared exception would collect the tracebacks of all who raise it"
    assert file.path not in str(errors[0])
    with pytest.raises(AdapterLoadError):
        house.cache.acquire(file)
    assert house.cache.prefetch(file) == "failed"
    assert house.load.loads[file.key] == 1
    assert house.states() == {file.name: "failed"}
    assert house.cache.stats().failures == 1

    changed = house.disk.write("a.safetensors")
    assert house.disk.holds_content(house.cache.acquire(changed).adapter)
    assert house.states() == {file.name: "ready"}


def test_clear_forgets_failures(house: House) -> None:
    file = house.disk.write_garbage("a.safetensors")
    for expected in (1, 2):
        with pytest.raises(AdapterLoadError):
            house.cache.acquire(file)
        assert house.load.loads[file.key] == expected
        house.cache.clear()


def test_a_failure_that_is_not_the_contents_fault_is_tried_again(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.next_errors = [AdapterUnavailableError(file.name, "no memory")]
    assert house.cache.prefetch(file) == "failed"
    assert house.cache.prefetch(file) == "ready"


def test_such_a_failure_too_reaches_everybody_who_waits(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demands = [house.acquire(file) for _ in range(2)]
    house.load.next_errors = [AdapterUnavailableError(file.name, "no memory") for _ in demands]
    house.load.let_go(file.name)
    assert prefetch.result() == "failed"
    for demand in demands:
        with pytest.raises(AdapterUnavailableError, match="no memory"):
            demand.result()
    assert house.load.storages == ["private", "mapped"], "one attempt, not one for each waiter"


def test_a_demand_streams_when_the_memory_of_its_reservation_is_not_there(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.next_errors = [AdapterUnavailableError(file.name, "no memory")]
    lease = house.cache.acquire(file)
    assert lease.adapter.storage == "mapped"
    assert house.budget.used_bytes == 0


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


def test_an_adapter_in_use_or_pinned_is_never_evicted(house: House) -> None:
    leased, pinned, idle = (house.disk.write(f"{name}.safetensors") for name in ("leased", "pinned", "idle"))
    lease = house.cache.acquire(leased)
    for file in (pinned, idle):
        assert house.cache.prefetch(file) == "ready"
    house.cache.pin(pinned.key)
    assert [house.cache.evict(file.key) for file in (leased, pinned, idle)] == [False, False, True]
    house.cache.resize(0)
    assert house.states().keys() == {leased.name, pinned.name}
    lease.release()
    house.cache.unpin(pinned.key)
    house.cache.resize(0)
    assert house.states() == {}


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


def test_a_stack_larger_than_the_budget_streams_through(house: House) -> None:
    files = [house.disk.write(f"{index}.safetensors") for index in range(4)]
    house.cache.resize(2 * files[0].size_bytes)
    leases = [house.cache.acquire(file) for file in files]
    assert [lease.adapter.storage for lease in leases] == ["private", "private", "mapped", "mapped"]
    assert [lease.outcome for lease in leases] == ["miss"] * 4
    assert house.budget.used_bytes == house.budget.limit_bytes
    assert all(house.disk.holds_content(lease.adapter) for lease in leases)

    shared = house.cache.acquire(files[3])
    assert shared.adapter is leases[3].adapter
    assert house.load.loads[files[3].key] == 1
    for lease in (shared, leases[3]):
        lease.release()
    assert files[3].name not in house.states()
    assert house.cache.acquire(files[3]).outcome == "miss"


def test_a_buffer_that_something_still_references_stays_reserved(house: House) -> None:
    """Patches in a host's model keep views of the buffer after cache and lease have let go."""
    file = house.disk.write("a.safetensors")
    lease = house.cache.acquire(file)
    patch = lease.adapter.tensors["m.lora_up.weight"]
    lease.release()
    assert house.cache.evict(file.key)
    assert house.budget.used_bytes == file.size_bytes
    assert patch.sum() == patch.numel() * house.disk.fill[file.key]
    del patch
    assert house.budget.used_bytes == 0


def test_an_adapter_dropped_while_leased_is_found_again_and_kept(house: House) -> None:
    """Its bytes are reserved for as long as the lease lives: loading it a second time would take them twice."""
    file = house.disk.write("a.safetensors")
    lease = house.cache.acquire(file)
    house.cache.clear()
    again = house.cache.acquire(file)
    assert again.adapter is lease.adapter
    assert house.load.loads[file.key] == 1
    for held in (lease, again):
        held.release()
    assert house.states() == {file.name: "ready"}
    assert house.budget.used_bytes == file.size_bytes


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


def test_a_released_lease_frees_what_the_cache_has_dropped_at_once(house: House) -> None:
    file = house.disk.write("a.safetensors")
    with house.cache.acquire(file):
        house.cache.clear()
        assert house.budget.used_bytes == file.size_bytes
    assert house.budget.used_bytes == 0


def test_a_changed_file_is_never_served_stale(house: House) -> None:
    old = house.disk.write("a.safetensors")
    lease = house.cache.acquire(old)
    new = house.disk.write("a.safetensors")
    fresh = house.cache.acquire(old)
    assert fresh.adapter.key == new.key
    assert house.disk.holds_content(fresh.adapter)
    assert house.disk.holds_content(lease.adapter), "who leased the old content keeps it"
    lease.release()
    assert house.budget.used_bytes == new.size_bytes
    assert house.cache.stats().evictions == {"stale": 1}


def test_a_file_replaced_while_it_is_being_loaded_is_not_cached_under_its_old_name(house: House) -> None:
    old = house.disk.write("a.safetensors")
    house.load.hold(old.name)
    demand = house.acquire(old)
    new = house.disk.write("a.safetensors")
    house.load.let_go(old.name)
    with pytest.raises(AdapterUnavailableError, match="changed"):
        demand.result()
    assert house.disk.holds_content(house.cache.acquire(new).adapter)


def test_a_file_that_is_gone_is_refused_even_when_it_was_cached(house: House) -> None:
    """Otherwise the result of a job would depend on what happened to be in the cache."""
    file = house.disk.write("a.safetensors")
    assert house.cache.prefetch(file) == "ready"
    house.disk.remove(file.name)
    with pytest.raises(AdapterUnavailableError, match="gone"):
        house.cache.acquire(file)
    assert house.cache.prefetch(file) == "failed"
    assert house.budget.used_bytes == 0


def test_a_pickle_is_never_opened_by_a_prefetch(house: House, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"not even a pickle")
    file = LoraFile("a.pt", str(path), 17, path.stat().st_mtime_ns)
    assert house.cache.prefetch(file) == "failed"
    assert house.load.loads == {}
    assert house.states() == {}


def test_a_prefetch_never_evicts_what_is_needed_as_soon(house: House) -> None:
    near, far, unplanned, wanted = (house.disk.write(f"{name}.safetensors") for name in ("n", "f", "u", "w"))
    house.cache.resize(2 * near.size_bytes)
    for file in (near, far):
        assert house.cache.prefetch(file) == "ready"

    house.cache.plan_uses({near.key: 1, far.key: 5, wanted.key: 5})
    assert house.cache.prefetch(wanted) == "no_room"
    assert house.cache.prefetch(unplanned) == "no_room"
    house.cache.plan_uses({near.key: 1, far.key: 5, wanted.key: 4})
    assert house.cache.prefetch(wanted) == "ready"
    assert house.states().keys() == {near.name, wanted.name}
    house.cache.plan_uses({near.key: 1})
    assert house.cache.prefetch(unplanned) == "no_room", "free space only, for what no job asks for"


def test_a_prefetch_that_cannot_get_its_room_evicts_nothing(house: House) -> None:
    small, leased = house.disk.write("s.safetensors", 100), house.disk.write("l.safetensors", 1000)
    large = house.disk.write("large.safetensors", 1000)
    house.cache.resize(small.size_bytes + leased.size_bytes)
    lease = house.cache.acquire(leased)
    assert house.cache.prefetch(small) == "ready"
    house.cache.plan_uses({large.key: 0})
    assert house.cache.prefetch(large) == "no_room"
    assert house.cache.acquire(large).adapter.storage == "mapped"
    assert house.states()[small.name] == "ready"
    assert lease.adapter is not None


def test_an_adapter_larger_than_the_budget_evicts_nothing(house: House) -> None:
    small, large = house.disk.write("s.safetensors", 100), house.disk.write("l.safetensors", 5000)
    house.cache.resize(small.size_bytes)
    assert house.cache.prefetch(small) == "ready"
    assert house.cache.acquire(large).adapter.storage == "mapped"
    assert house.states()[small.name] == "ready"


def test_a_demand_takes_the_furthest_first(house: House) -> None:
    near, far, never, wanted = (house.disk.write(f"{name}.safetensors") for name in ("n", "f", "x", "w"))
    house.cache.resize(3 * near.size_bytes)
    for file in (near, far, never):
        house.cache.acquire(file).release()
    house.cache.plan_uses({near.key: 1, far.key: 9})
    house.cache.acquire(wanted).release()
    assert house.states().keys() == {near.name, far.name, wanted.name}
    house.cache.plan_uses({near.key: 1, far.key: 9, wanted.key: 0})
    house.cache.acquire(never).release()
    assert house.states().keys() == {near.name, never.name, wanted.name}


def test_beyond_the_queue_what_is_slow_to_read_stays_until_it_has_aged(house: House) -> None:
    slow, *fast = (house.disk.write(f"{name}.safetensors") for name in "sabcdef")
    house.cache.resize(2 * slow.size_bytes)
    house.cache.record_cold_read(slow.key, 1000.0)
    for file in fast:
        house.cache.record_cold_read(file.key, 400.0)
    house.cache.acquire(slow).release()
    kept = []
    for file in fast:
        house.cache.acquire(file).release()
        kept.append(slow.name in house.states())
    assert kept == [True, True, True, False, False, False], "each eviction ages the cache by 400 s"


def test_the_hidden_share_counts_cold_reads_of_what_was_demanded(house: House) -> None:
    warm, cold = house.disk.write("w.safetensors"), house.disk.write("c.safetensors")
    house.cache.record_cold_read(warm.key, 0.75)
    house.cache.record_cold_read(warm.key, 0.01)
    house.cache.record_cold_read(house.disk.write("other.safetensors").key, 99.0)
    assert house.cache.stats().hidden_share is None
    house.cache.prefetch(warm)
    house.cache.acquire(warm).release()
    stats = house.cache.stats()
    assert stats.load_s == pytest.approx(0.75, abs=0.01)
    assert stats.hidden_share == pytest.approx(1 - stats.wait_s / stats.load_s)
    house.cache.acquire(cold).release()
    assert house.cache.stats().load_s > stats.load_s


def test_bytes_prefetched_for_nothing_are_counted_once(house: House) -> None:
    used, unused = house.disk.write("u.safetensors"), house.disk.write("n.safetensors")
    for file in (used, unused):
        assert house.cache.prefetch(file) == "ready"
    house.cache.acquire(used).release()
    house.cache.clear()
    stats = house.cache.stats()
    assert stats.wasted_bytes == unused.size_bytes
    assert stats.evictions == {"clear": 2}
    assert stats.prefetched_bytes == stats.read_bytes > 0


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


def test_a_read_that_was_held_back_is_not_a_slow_disk(tmp_path: Path) -> None:
    """Otherwise a read limit would flatter the hidden share: no demand would have waited that long."""
    now_s = [0.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    file = Disk(tmp_path).write("a.safetensors")
    cache = AdapterCache(ByteBudget(1 << 20), clock=lambda: now_s[0])
    assert cache.prefetch(file, limiter=RateLimit(100.0, clock=lambda: now_s[0], sleep=sleep)) == "ready"
    assert now_s[0] > 10
    cache.acquire(file).release()
    assert cache.stats().load_s < 0.001


def test_a_snapshot_is_what_it_was(house: House) -> None:
    file = house.disk.write("a.safetensors")
    lease = house.cache.acquire(file)
    house.cache.plan_uses({file.key: 3})
    house.cache.pin(file.key)
    before = house.cache.snapshot()
    lease.release()
    house.cache.unpin(file.key)
    assert house.cache.snapshot().revision > before.revision
    (view,) = before.adapters
    assert (view.name, view.nbytes, view.state, view.storage) == (file.name, file.size_bytes, "ready", "private")
    assert (view.leases, view.pinned, view.hits, view.next_use) == (1, True, 1, 3)
    assert (before.used_bytes, before.limit_bytes) == (file.size_bytes, 1 << 20)
    assert house.cache.snapshot().revision == house.cache.snapshot().revision


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
    calls = [Background(lambda _, seed=seed: run(seed)) for seed in range(6)]  # type: ignore[misc]
    for call in calls:
        call.result()
    assert house.budget.peak_bytes <= house.budget.limit_bytes
    assert house.load.most_active == 1
    house.cache.clear()
    assert house.budget.used_bytes == house.load.live_bytes == 0
    assert math.isclose(sum(house.load.active.values()), 0)
