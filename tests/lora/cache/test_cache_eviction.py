"""Who makes room in AdapterCache and for whom, what is never taken, and when its bytes come back."""

from __future__ import annotations

from warmstack.lora.cache.budget import ByteBudget, Reservation
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.file import LoraFile

from ..cache_kit import House


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


def test_a_released_lease_frees_what_the_cache_has_dropped_at_once(house: House) -> None:
    file = house.disk.write("a.safetensors")
    with house.cache.acquire(file):
        house.cache.clear()
        assert house.budget.used_bytes == file.size_bytes
    assert house.budget.used_bytes == 0


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


def test_memory_beside_adapters_displaces_only_what_no_job_names(house: House) -> None:
    past, queued, leased = (house.disk.write(f"{name}.safetensors") for name in ("p", "q", "l"))
    house.cache.resize(3 * past.size_bytes)
    for file in (past, queued):
        house.cache.acquire(file).release()
    lease = house.cache.acquire(leased)
    house.cache.plan_uses({queued.key: 9})
    assert house.cache.reserve_beside(past.size_bytes + 1) is None
    assert len(house.states()) == 3, "nothing goes where that does not make the room"
    reservation = house.cache.reserve_beside(past.size_bytes)
    assert reservation is not None
    assert house.states().keys() == {queued.name, leased.name}
    assert house.cache.budget.used_bytes == 3 * past.size_bytes
    assert lease.adapter is not None
    del reservation
    assert house.cache.budget.used_bytes == 2 * past.size_bytes


class LateBudget(ByteBudget):
    """Somebody else's bytes come back right after they were in the way."""

    others: Reservation | None = None

    def try_reserve(self, nbytes: int) -> Reservation | None:
        reservation = super().try_reserve(nbytes)
        if reservation is None and self.others is not None:
            self.others.release()
        return reservation


def test_room_that_others_leave_meanwhile_is_room(house: House) -> None:
    file = house.disk.write("a.safetensors")
    budget = LateBudget(file.size_bytes)
    cache = AdapterCache(budget, load=house.load)
    budget.others = budget.try_reserve(1)
    assert cache.acquire(file).adapter.storage == "private"


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


def test_what_is_evicted_for_a_load_gives_it_its_memory_and_nothing_is_kept_for_long(house: House) -> None:
    first, second = (house.disk.write(f"{name}.safetensors") for name in "ab")
    cache = AdapterCache(ByteBudget(first.size_bytes))

    def where(file: LoraFile) -> int:
        with cache.acquire(file) as lease:
            assert house.disk.holds_content(lease.adapter)
            return min(tensor.untyped_storage().data_ptr() for tensor in lease.adapter.tensors.values())

    assert where(first) == where(second) == where(first)
    assert cache.stats().misses == 3
    assert cache.snapshot().spare_bytes == 0
    for let_go in (cache.clear, lambda: cache.resize(0), lambda: (cache.evict(first.key), cache.release_spare())):
        where(first)
        let_go()
        assert cache.snapshot().spare_bytes == 0
        cache.resize(first.size_bytes)
    where(first)
    assert cache.evict(first.key)
    assert 0 < cache.snapshot().spare_bytes <= first.size_bytes
