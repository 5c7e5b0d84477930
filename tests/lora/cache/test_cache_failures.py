"""What AdapterCache cannot serve as asked: broken, changed, gone or pickled files, memory that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.lora.errors import AdapterLoadError, AdapterUnavailableError
from warmstack.lora.library.file import LoraFile

from ..cache_kit import House


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
    assert house.cache.prefetch(file) == "unavailable"
    assert house.cache.prefetch(file) == "ready"


def test_such_a_failure_too_reaches_everybody_who_waits(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demands = [house.acquire(file) for _ in range(2)]
    house.load.next_errors = [AdapterUnavailableError(file.name, "no memory") for _ in demands]
    house.load.let_go(file.name)
    assert prefetch.result() == "unavailable"
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
    assert house.cache.prefetch(file) == "unavailable"
    assert house.budget.used_bytes == 0


def test_a_pickle_is_never_opened_by_a_prefetch(house: House, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"not even a pickle")
    file = LoraFile("a.pt", str(path), 17, path.stat().st_mtime_ns)
    assert house.cache.prefetch(file) == "failed"
    assert house.load.loads == {}
    assert house.states() == {}
