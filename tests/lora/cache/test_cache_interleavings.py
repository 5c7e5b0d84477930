"""Interleavings of AdapterCache that only an unlucky moment brings about, each forced here.

The races that others have met (weight caches, adapter servers, hosts with a second stream), and the test that forces
each. `test_every_race_has_its_test` reads this table.

| Race | Test |
|---|---|
| two loads of one adapter at once | tests/lora/cache/test_cache_races.py::test_two_demands_share_one_load |
| ... again, once an abandoned load has been cleared away | ::test_two_waiters_of_an_abandoned_load_share_the_next |
| a lock that a finalizer takes | tests/lora/cache/test_cache_races.py::test_a_dropped_lease_ends_without_taking_a_lock |
| ... of the ledger | tests/lora/cache/test_budget.py::test_a_buffer_may_die_in_a_thread_that_holds_the_lock |
| a finalizer that comes back to the cache while it evicts | ::test_a_buffer_that_dies_may_ask_the_cache_whatever_let_go_of_it |
| an entry evicted before its first user has it | tests/lora/cache/test_cache_races.py::test_room_for_a_demand_is_not_made_from_an_adapter_whose_joiner_has_not_woken |
| a claim released twice or never | ::test_a_waiter_that_gives_up_as_the_load_lands_leaves_no_lease |
| two stacks that wait for each other | ::test_two_stacks_in_opposite_order_do_not_wait_for_each_other |
| eviction while a reader holds a view | tests/lora/cache/test_cache_eviction.py::test_a_buffer_that_something_still_references_stays_reserved |
| eviction while the file is being read | tests/lora/cache/test_cache_races.py::test_evicting_what_is_being_loaded_is_refused |
| a smaller budget while the file is being read | tests/prefetch/test_prefetcher_limits.py::test_what_lands_or_is_let_go_under_pressure_goes_too |
| eviction while it is copied to the device | tests/lora/device/test_device_shelf.py::test_what_a_copy_still_writes_to_is_no_room_for_another |
| memory given away before the computing stream has read it | tests/lora/device/test_device_shelf.py::test_memory_stays_until_the_stream_that_works_with_it_is_through |
| a copy on the wrong stream, seen on a slow bus alone | tests/lora/device/test_device_shelf.py::test_what_is_still_on_the_bus_is_waited_for_by_the_stream |
| freed memory read | tests/loaders/test_transfer.py::test_who_reads_without_asking_for_the_order_reads_poison |
| a thousand tiny asynchronous copies | tests/loaders/test_transfer.py::test_one_copy_per_slot_however_many_tensors |
| a staging slot filled again before its copy is through | tests/loaders/test_transfer.py::test_the_fake_tells_of_a_source_that_was_overwritten_too_early |
| ... with one slot, with many | tests/loaders/test_transfer.py::test_whatever_happens_bytes_arrive_or_nothing_does_and_no_pinned_byte_is_left |
| memory released while another stream uses it | tests/loaders/test_transfer_cuda.py::test_a_gpu_keeps_the_memory_of_what_another_stream_still_uses |
| the list order of a heap taken for the running order | tests/nodes/server/test_host.py::test_jobs_come_running_first_then_in_execution_order |
| a prompt that is seen and then refused | tests/nodes/server/test_host.py::test_a_prompt_wakes_and_passes_unchanged |
| the host frees memory while ours holds on | tests/nodes/server/test_host.py::test_freeing_memory_releases |
| cancelled while queued | tests/prefetch/test_late_prefetch.py::test_a_read_that_is_cancelled_while_it_is_queued_opens_nothing |
| cancelled while reading | tests/prefetch/test_prefetcher.py::test_cancel_latency_is_one_chunk |
| cancelled while pinning or copying | tests/loaders/test_transfer.py::test_a_cancel_is_seen_between_two_slots |
| cancelled once patched | tests/host/checks_nodes.py::check_an_interrupt_stops_the_stack_and_gives_back |
| an interrupt that is no Exception, while reading | ::test_an_interrupt_in_the_middle_of_a_read_leaves_nothing_behind |
| ... while waiting | ::test_an_interrupt_of_one_waiter_leaves_the_others_alone |
| a cancelled event loop task | tests/prefetch/test_lifecycle.py::test_cancelling_run_ends_as_cleanly |
| the end of the process in the middle of a read | tests/prefetch/test_lifecycle.py::test_close_from_another_thread_returns_when_everything_has_ended |
| ... in the middle of an upload | tests/lora/device/test_device_shelf.py::test_closing_in_the_middle_of_an_upload_leaves_nothing |
| the end, while a job waits for what is being read ahead | tests/prefetch/test_late_prefetch.py::test_the_end_leaves_a_waiting_job_its_read |
| a late prefetch that has become a demand: its limit | tests/lora/cache/test_cache_races.py::test_a_demand_lifts_the_rate_limit_of_the_prefetch_it_joins |
| ... its cancel | tests/prefetch/test_late_prefetch.py::test_a_job_keeps_the_read_that_it_has_joined_when_the_queue_is_cleared |
| ... on its way to the device | tests/lora/device/test_device_shelf.py::test_a_demand_keeps_the_prefetch_that_it_joined_going |
| a file replaced between header and last chunk | ::test_a_file_replaced_under_a_read_is_not_the_next_ones_content |
"""  # noqa: E501

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.lease import Lease
from warmstack.lora.errors import AdapterLoadCancelledError
from warmstack.lora.library.file import LoraFile

from ..cache_kit import Background, House

ROOT = Path(__file__).parents[3]


class InterruptProcessing(BaseException):
    """As the host raises it from whatever asks it for an interrupt."""


def test_every_race_has_its_test() -> None:
    named = re.findall(r"([\w/]*(?:\.py)?)::(\w+) \|", __doc__ or "")
    assert len(named) > 30
    for path, name in named:
        text = (ROOT / path if path else Path(__file__)).read_text("utf-8")
        assert re.search(rf"def {name}\(", text), f"{path}::{name}"


def test_two_waiters_of_an_abandoned_load_share_the_next(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    demands = [house.acquire(file) for _ in range(2)]
    house.load.next_errors = [AdapterLoadCancelledError(file.name, "cancelled")]
    house.load.let_go(file.name)
    assert prefetch.result() == "cancelled"
    leases = [demand.result() for demand in demands]
    assert leases[0].adapter is leases[1].adapter
    assert house.load.loads[file.key] == 2
    assert house.load.most_active == 1


def test_a_waiter_that_gives_up_as_the_load_lands_leaves_no_lease(house: House) -> None:
    """Its hold was counted when the load landed; it looked at its own flag before that."""
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)

    def cancelled_as_it_lands() -> bool:
        if not prefetch.done:
            house.load.let_go(file.name)
            prefetch.join()
        return True

    with pytest.raises(AdapterLoadCancelledError):
        house.cache.acquire(file, cancelled=cancelled_as_it_lands)
    assert prefetch.result() == "ready"
    assert [(view.state, view.leases) for view in house.cache.snapshot().adapters] == [("ready", 0)]
    assert house.cache.evict(file.key)
    assert house.budget.used_bytes == 0


def test_two_stacks_in_opposite_order_do_not_wait_for_each_other(house: House) -> None:
    """Each job has the one adapter that the budget holds when it asks for the other's."""
    files = [house.disk.write(f"{name}.safetensors") for name in "ab"]
    house.cache.resize(files[0].size_bytes)
    first = house.cache.acquire(files[0])
    second = house.acquire(files[1]).result()
    crossed = [house.acquire(files[1]), house.acquire(files[0])]
    leases = [first, second, *(call.result() for call in crossed)]
    assert [lease.adapter.key for lease in leases] == [file.key for file in (*files, *reversed(files))]
    assert all(house.disk.holds_content(lease.adapter) for lease in leases)
    assert house.budget.peak_bytes <= house.budget.limit_bytes


def test_an_interrupt_in_the_middle_of_a_read_leaves_nothing_behind(house: House) -> None:
    file = house.disk.write("a.safetensors")

    def interrupted() -> bool:
        raise InterruptProcessing

    with pytest.raises(InterruptProcessing):
        house.cache.acquire(file, cancelled=interrupted)
    assert house.states() == {}
    assert house.budget.used_bytes == 0
    lease = house.cache.acquire(file)
    assert lease.outcome == "miss"
    assert house.disk.holds_content(lease.adapter)


def test_an_interrupt_of_one_waiter_leaves_the_others_alone(house: House) -> None:
    file = house.disk.write("a.safetensors")
    house.load.hold(file.name)
    prefetch = house.prefetch(file)
    patient = house.acquire(file)

    def interrupted() -> bool:
        raise InterruptProcessing

    impatient: Background[Lease] = Background(lambda _: house.cache.acquire(file, cancelled=interrupted))
    with pytest.raises(InterruptProcessing):
        impatient.result()
    assert house.waiting(file) == 1
    house.load.let_go(file.name)
    assert house.disk.holds_content(patient.result().adapter)
    assert prefetch.result() == "ready"
    assert [view.leases for view in house.cache.snapshot().adapters] == [0], "the result was dropped"


def ways_to_let_go(house: House, other: LoraFile) -> dict[str, Callable[[LoraFile], object]]:
    """Everything that makes the cache drop an adapter that nobody leases."""
    return {
        "evict": lambda file: house.cache.evict(file.key),
        "clear": lambda file: house.cache.clear(),
        "resize": lambda file: house.cache.resize(0),
        "demand": lambda file: house.cache.acquire(other).release(),
        "prefetch": lambda file: house.cache.prefetch(other),
        "stale": lambda file: house.cache.acquire(house.disk.write(file.name)).release(),
    }


@pytest.mark.parametrize("way", ["evict", "clear", "resize", "demand", "prefetch", "stale"])
def test_a_buffer_that_dies_may_ask_the_cache_whatever_let_go_of_it(house: House, way: str) -> None:
    """What hangs on an adapter may run any code when it dies: held under the lock, that would be the end."""
    file, other = house.disk.write("a.safetensors"), house.disk.write("b.safetensors")
    house.cache.resize(file.size_bytes)
    let_go = ways_to_let_go(house, other)[way]
    asked: list[int] = []
    lease = house.cache.acquire(file)
    weakref.finalize(lease.adapter, lambda: asked.append(house.cache.snapshot().used_bytes))
    lease.release()
    del lease
    house.cache.plan_uses({other.key: 1})
    Background(lambda _: let_go(file)).result()
    assert len(asked) == 1


def test_a_file_replaced_under_a_read_is_not_the_next_ones_content(house: House) -> None:
    """The reader has the old file open; who asks once the new one is in place gets the new one, at once."""
    old = house.disk.write("a.safetensors")
    replaced: list[LoraFile] = []

    class Replacing(RateLimit):
        def spend(self, nbytes: int, cancelled: Callable[[], bool] | None = None) -> None:
            replaced.append(house.disk.write(old.name))

    prefetch = house.prefetch(old, Replacing(1.0))
    assert prefetch.result() in ("ready", "failed")
    (new,) = replaced
    lease = house.cache.acquire(old)
    assert lease.adapter.key == new.key
    assert house.disk.holds_content(lease.adapter)
    assert {view.key for view in house.cache.snapshot().adapters} == {new.key}
    assert house.budget.used_bytes == new.size_bytes
