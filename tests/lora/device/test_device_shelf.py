"""DeviceShelf: what is there, who waits for what, what goes, and when its memory does."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

from warmstack.lora.device.device_shelf import RETRY_S
from warmstack.lora.library.file import AdapterKey

from ..cache_kit import DEADLINE_S
from ..shelf_kit import Shop, adapter_of, content, in_thread, raw

INK, WASH, FOX = (adapter_of(name) for name in ("ink", "wash", "fox"))
NOBODY = AdapterKey("/loras/nobody.safetensors", 1, 1)


def test_what_was_sent_ahead_is_there_when_it_is_asked_for():
    shop = Shop()
    assert shop.shelf.prefetch(INK, 1) == "ready"
    shop.device.perform_all()
    with shop.shelf.wait_for_prefetch(INK.key) as ready:
        assert ready.outcome == "hit"
        assert {key: raw(tensor) for key, tensor in ready.tensors.items()} == content(INK)
        assert ready.tensors["none"].shape == (0, 3)
    stats = shop.shelf.snapshot().stats
    assert (stats.hits, stats.joins, stats.misses) == (1, 0, 0)
    assert (stats.uploaded_bytes, stats.prefetched_bytes, stats.wasted_bytes) == (992, 992, 0)


def test_what_is_still_on_the_bus_is_waited_for_by_the_stream():
    shop = Shop(slots=8)
    shop.shelf.prefetch(INK, 1)
    assert [view.state for view in shop.shelf.snapshot().adapters] == ["arriving"]
    with shop.shelf.wait_for_prefetch(INK.key) as joined:
        assert joined.outcome == "join"
        assert raw(joined.tensors["up"]) == content(INK)["up"]
    # One wait, in the order of the stream, however many copies and tensors.
    assert sum(event.ordered for event in shop.device.events) == 1
    assert shop.device.events[-1].ordered == 1


def test_nothing_is_known_of_what_nobody_sent():
    shop = Shop()
    assert shop.shelf.wait_for_prefetch(INK.key) is None
    assert shop.shelf.snapshot().stats.misses == 1
    assert shop.device.copies == 0


def test_a_miss_sends_it_now():
    shop = Shop(lag=0)
    with shop.shelf.acquire(INK) as sent:
        assert sent.outcome == "miss"
        assert raw(sent.tensors["down"]) == content(INK)["down"]
    with shop.shelf.acquire(INK) as again:
        assert again.outcome == "hit"
    stats = shop.shelf.snapshot().stats
    assert (stats.hits, stats.misses, stats.prefetched_bytes) == (1, 1, 0)


@pytest.mark.parametrize("gives_up", [True, False])
def test_a_demand_for_what_is_being_put_into_slots_waits_until_it_is_queued_or_given_up(gives_up: bool):
    shop, entered, go_on = Shop(), threading.Event(), threading.Event()
    answers: list[object] = []

    def cancelled() -> bool:
        entered.set()
        assert go_on.wait(DEADLINE_S)
        return gives_up

    prefetching = in_thread(lambda: answers.append(shop.shelf.prefetch(INK, 1, cancelled=cancelled)))
    assert entered.wait(DEADLINE_S)
    assert [view.state for view in shop.shelf.snapshot().adapters] == ["sending"]
    if gives_up:
        go_on.set()
        prefetching.join(DEADLINE_S)
        assert answers == ["cancelled"]
        assert shop.shelf.wait_for_prefetch(INK.key) is None
        assert shop.budget.used_bytes == 0
        return
    demanding = in_thread(lambda: answers.append(shop.shelf.wait_for_prefetch(INK.key)))
    while shop.shelf.snapshot().adapters[0].uses == 0:
        demanding.join(0.001)
    go_on.set()
    prefetching.join(DEADLINE_S)
    demanding.join(DEADLINE_S)
    joined = next(answer for answer in answers if answer != "ready")
    assert joined.outcome == "join"
    assert raw(joined.tensors["up"]) == content(INK)["up"]
    assert not shop.shelf.evict(INK.key)


def test_a_demand_keeps_the_prefetch_that_it_joined_going():
    shop, entered, go_on = Shop(), threading.Event(), threading.Event()
    answers: list[object] = []
    asked = iter([False])

    def first_no_then_yes() -> bool:
        entered.set()
        assert go_on.wait(DEADLINE_S)
        return next(asked, True)

    prefetching = in_thread(lambda: answers.append(shop.shelf.prefetch(INK, 1, cancelled=first_no_then_yes)))
    assert entered.wait(DEADLINE_S)
    demanding = in_thread(lambda: answers.append(shop.shelf.wait_for_prefetch(INK.key)))
    while shop.shelf.snapshot().adapters[0].uses == 0:
        demanding.join(0.001)
    go_on.set()
    prefetching.join(DEADLINE_S)
    demanding.join(DEADLINE_S)
    assert "ready" in answers
    assert None not in answers


def test_two_prefetches_of_one_adapter_are_one_upload():
    shop = Shop()
    assert [shop.shelf.prefetch(INK, 1), shop.shelf.prefetch(INK, 1)] == ["ready", "already"]
    assert shop.device.copies == 4


def test_the_furthest_next_use_goes_first_and_nothing_that_is_needed_sooner():
    shop = Shop(budget_bytes=2000, lag=0)
    shop.shelf.plan_uses({INK.key: 5, WASH.key: 1, FOX.key: 3})
    assert shop.shelf.prefetch(INK, 5) == "ready"
    assert shop.shelf.prefetch(WASH, 1) == "ready"
    assert shop.shelf.prefetch(FOX, 3) == "ready"
    assert {view.key for view in shop.shelf.snapshot().adapters} == {WASH.key, FOX.key}
    assert shop.shelf.prefetch(INK, 5) == "no_room"
    assert shop.shelf.snapshot().stats.evictions == {"prefetch": 1}
    assert shop.shelf.snapshot().stats.wasted_bytes == 992


def test_what_nobody_has_queued_lives_in_free_space_alone():
    shop = Shop(budget_bytes=1000, lag=0)
    assert shop.shelf.prefetch(INK, None) == "ready"
    assert shop.shelf.prefetch(WASH, None) == "no_room"
    assert shop.shelf.prefetch(WASH, 4) == "ready"
    assert shop.shelf.wait_for_prefetch(INK.key) is None


def test_a_demand_displaces_what_is_needed_sooner_but_not_what_is_in_use():
    shop = Shop(budget_bytes=1000, lag=0)
    shop.shelf.prefetch(INK, 0)
    with shop.shelf.acquire(INK):
        assert shop.shelf.acquire(WASH) is None
    with shop.shelf.acquire(WASH) as sent:
        assert sent.outcome == "miss"
    assert shop.shelf.wait_for_prefetch(INK.key) is None


def test_an_adapter_larger_than_the_budget_displaces_nothing():
    shop = Shop(budget_bytes=1500, lag=0)
    shop.shelf.prefetch(INK, 3)
    assert shop.shelf.prefetch(adapter_of("huge", 3000), 0) == "no_room"
    assert shop.shelf.holds(INK.key)


def test_what_a_copy_still_writes_to_is_no_room_for_another():
    shop = Shop(budget_bytes=1000, slots=8)
    assert shop.shelf.prefetch(INK, 4) == "ready"
    assert shop.shelf.prefetch(WASH, 1) == "no_room"
    shop.device.perform_all()
    assert shop.shelf.prefetch(WASH, 1) == "ready"
    assert shop.device.peak_allocated_bytes <= 1000


def test_memory_stays_until_the_stream_that_works_with_it_is_through():
    """Evicted right after the last use was queued, on a computing stream that is slow."""
    shop = Shop(budget_bytes=1000, lag=0)
    with shop.shelf.acquire(INK) as used:
        reading = shop.device.read_later(used.tensors["up"])
    assert shop.shelf.evict(INK.key)
    assert shop.shelf.prefetch(WASH, 0) == "no_room"
    assert (shop.budget.used_bytes, shop.device.allocated_bytes) == (992, 992)
    assert reading.seen == content(INK)["up"]
    assert shop.shelf.prefetch(WASH, 0) == "ready"
    assert shop.device.peak_allocated_bytes <= 1000


def test_a_victim_is_not_one_that_a_stream_still_works_with():
    shop = Shop(budget_bytes=1000, lag=0)
    with shop.shelf.acquire(INK) as used:
        reading = shop.device.read_later(used.tensors["up"])
    assert shop.shelf.prefetch(WASH, 0) == "no_room"
    assert shop.shelf.holds(INK.key)
    assert reading.seen == content(INK)["up"]
    assert shop.shelf.prefetch(WASH, 0) == "ready"


def test_a_use_that_is_dropped_ends_as_one_that_is_released():
    shop = Shop(budget_bytes=1000, lag=0)
    used = shop.shelf.acquire(INK)
    reading = shop.device.read_later(used.tensors["up"])
    del used
    gc.collect()
    assert shop.shelf.prefetch(WASH, 0) == "no_room"
    assert reading.seen == content(INK)["up"]
    assert shop.shelf.prefetch(WASH, 0) == "ready"
    assert shop.shelf.snapshot().adapters[0].uses == 0


def test_tensors_that_outlive_their_use_keep_their_memory_and_its_bytes():
    shop = Shop(budget_bytes=1000, lag=0)
    with shop.shelf.acquire(INK) as used:
        kept = used.tensors["up"]
    shop.shelf.clear()
    assert shop.shelf.prefetch(WASH, 0) == "no_room"
    assert raw(kept) == content(INK)["up"]
    del kept
    assert shop.shelf.prefetch(WASH, 0) == "ready"


def test_a_released_use_gives_nothing_more():
    shop = Shop(lag=0)
    used = shop.shelf.acquire(INK)
    used.release()
    used.release()
    assert shop.shelf.snapshot().adapters[0].uses == 0
    with pytest.raises(RuntimeError, match="was released"):
        _ = used.tensors
    with pytest.raises(RuntimeError, match="was released"):
        used.twins(INK)
    assert shop.shelf.evict(INK.key)


def test_a_smaller_budget_drops_what_is_over_it_now_or_after_its_use():
    shop = Shop(budget_bytes=2000, lag=0)
    shop.shelf.prefetch(WASH, 5)
    with shop.shelf.acquire(INK):
        shop.shelf.resize(500)
        assert not shop.shelf.holds(WASH.key)
        assert shop.shelf.holds(INK.key)
    assert shop.shelf.prefetch(WASH, 0) == "no_room"
    assert not shop.shelf.holds(INK.key)
    assert shop.budget.used_bytes == 0
    assert shop.shelf.snapshot().stats.evictions == {"resize": 2}


def test_a_device_without_memory_is_left_alone_for_a_while_and_it_is_said():
    shop = Shop(lag=0, memory_limit_bytes=500)
    assert shop.shelf.prefetch(INK, 1) == "no_room"
    assert "no room for 992 bytes on cpu" in shop.shelf.snapshot().problem
    assert shop.budget.used_bytes == 0
    shop.device.memory_limit_bytes = None
    assert shop.shelf.acquire(INK) is None
    shop.now_s += RETRY_S
    assert shop.shelf.prefetch(INK, 1) == "ready"
    assert shop.shelf.snapshot().problem == ""


@pytest.mark.parametrize("ask_again", ["clear", "resize"])
def test_who_frees_memory_is_believed(ask_again: str):
    shop = Shop(lag=0, memory_limit_bytes=500)
    shop.shelf.prefetch(INK, 1)
    shop.device.memory_limit_bytes = None
    shop.shelf.clear() if ask_again == "clear" else shop.shelf.resize(3000)
    assert shop.shelf.prefetch(INK, 1) == "ready"


def test_memory_that_cannot_be_pinned_slows_down_and_is_told():
    shop = Shop(lag=0, pinned_limit_bytes=10)
    assert shop.shelf.prefetch(INK, 1) == "ready"
    assert "could not be pinned" in shop.shelf.snapshot().problem
    assert shop.shelf.snapshot().pinned_bytes == 0
    with shop.shelf.wait_for_prefetch(INK.key) as ready:
        assert raw(ready.tensors["up"]) == content(INK)["up"]


def test_a_host_without_memory_for_the_slots_uses_what_it_has():
    shop = Shop(lag=0, pinned_limit_bytes=10)
    shop.transfer._slot_bytes = 1 << 61
    assert shop.shelf.acquire(INK) is None
    assert shop.shelf.snapshot().problem == "the host has no memory for the slots"
    assert shop.budget.used_bytes == 0


def test_a_broken_bus_fails_one_prefetch_and_is_told_without_a_path():
    shop = Shop(lag=0, failing_copy=2)
    assert shop.shelf.prefetch(INK, 1) == "failed"
    assert shop.shelf.snapshot().problem == "cannot go to cpu: the bus is broken"
    assert (shop.budget.used_bytes, shop.device.allocated_bytes) == (0, 0)
    assert shop.shelf.prefetch(INK, 1) == "ready"
    shop.device.failing_copy = shop.device.copies
    assert shop.shelf.acquire(WASH) is None


@pytest.mark.parametrize(("field", "value"), [("buffer", None), ("tensors", {"none": torch.empty(0, 3)})])
def test_what_is_mapped_or_has_no_byte_stays_on_the_host_and_stops_nobody(field: str, value: object):
    shop, other = Shop(), adapter_of("other")
    object.__setattr__(other, field, value)
    assert shop.shelf.prefetch(other, 0) == "unfit"
    assert shop.shelf.acquire(other) is None
    assert shop.shelf.prefetch(INK, 1) == "ready"


def test_an_adapter_that_was_laid_out_otherwise_is_not_taken_for_its_twin():
    shop = Shop(lag=0)
    shop.shelf.prefetch(INK, 0)
    moved = adapter_of("ink", 1000, lead_bytes=64)
    object.__setattr__(moved, "key", INK.key)
    assert shop.shelf.acquire(moved) is None
    assert shop.shelf.acquire(INK) is not None


def test_a_mapped_adapter_is_not_told_of_a_private_one_of_its_file():
    shop = Shop(lag=0)
    shop.shelf.prefetch(INK, 0)
    mapped = adapter_of("ink")
    object.__setattr__(mapped, "buffer", None)
    assert shop.shelf.acquire(mapped) is None


def test_closing_in_the_middle_of_an_upload_leaves_nothing():
    shop, answers = Shop(budget_bytes=4000), []
    shop.shelf.prefetch(WASH, 2)

    def close_meanwhile() -> bool:
        shop.shelf.close()
        return False

    answers.append(shop.shelf.prefetch(INK, 1, cancelled=close_meanwhile))
    assert answers == ["cancelled"]
    shop.device.perform_all()
    assert shop.shelf.prefetch(FOX, 0) == "cancelled"
    assert shop.shelf.wait_for_prefetch(FOX.key) is None
    assert shop.shelf.acquire(FOX) is None
    assert shop.shelf.snapshot().adapters == ()
    assert (shop.budget.used_bytes, shop.device.allocated_bytes, shop.device.pinned_bytes) == (0, 0, 0)
    assert shop.device.overwritten == 0


def test_closing_waits_for_the_streams():
    """The next owner of the memory may be somebody who knows of none of them."""
    shop = Shop(slots=8)
    with shop.shelf.acquire(INK) as used:
        reading = shop.device.read_later(used.tensors["up"])
    shop.shelf.prefetch(WASH, 1)
    assert shop.device.in_flight
    shop.shelf.close()
    assert (shop.device.in_flight, shop.device.allocated_bytes, shop.budget.used_bytes) == (0, 0, 0)
    assert reading.seen == content(INK)["up"]


def test_closing_waits_for_nobodys_use():
    shop = Shop(lag=0)
    used = shop.shelf.acquire(INK)
    shop.shelf.close()
    assert raw(used.tensors["up"]) == content(INK)["up"]
    used.release()
    del used
    shop.shelf.clear()
    assert (shop.budget.used_bytes, shop.device.allocated_bytes) == (0, 0)


def test_a_snapshot_changes_its_revision_with_what_it_shows():
    shop = Shop(lag=0)
    seen = [shop.shelf.snapshot()]
    for change in (
        lambda: shop.shelf.prefetch(INK, 1),
        lambda: shop.shelf.plan_uses({INK.key: 3}),
        lambda: shop.shelf.acquire(INK).release(),
        lambda: shop.shelf.evict(INK.key),
    ):
        change()
        seen.append(shop.shelf.snapshot())
    assert [one.revision for one in seen] == sorted({one.revision for one in seen})
    assert seen[-1].device == "cpu"


@pytest.mark.parametrize("lead_bytes", [0, 1, 2, 16])
def test_every_view_of_the_host_has_its_twin(lead_bytes: int):
    adapter = adapter_of("twins", 320 + lead_bytes, lead_bytes=lead_bytes)
    shop = Shop(lag=0)
    up, down = adapter.tensors["up"], adapter.tensors["down"]
    with shop.shelf.acquire(adapter) as used:
        twin = used.twins(adapter)
        for view in (up, down, up.T, up[1:5, 2:], down.view(2, -1)[1], up[::2], up.view(torch.int16)):
            assert torch.equal(twin(view), view)
            assert shop.device.owns(twin(view)) or lead_bytes == 1
        foreign = torch.arange(4.0)
        assert twin(foreign) is foreign
        assert twin(adapter.tensors["none"]).shape == (0, 3)
        with pytest.raises(ValueError, match="another file"):
            used.twins(INK)


def test_a_twin_that_goes_into_a_product_uncast_starts_where_kernels_want_it():
    adapter = adapter_of("odd", 404, lead_bytes=4)
    single = adapter.tensors["up"].view(torch.float32)
    shop = Shop(lag=0)
    with shop.shelf.acquire(adapter) as used:
        assert single.data_ptr() % 16 and not used.twins(adapter)(single).data_ptr() % 16
        assert torch.equal(used.twins(adapter)(single).view(torch.int32), single.view(torch.int32))
