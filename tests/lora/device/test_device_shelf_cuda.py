"""The device shelf on a real GPU: what the fake shows, where streams and the allocator are real."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator

import pytest
import torch

from warmstack.loaders.transfer import DeviceTransfer
from warmstack.loaders.upload.cuda_device import CudaDevice
from warmstack.lora.cache.adapter import Adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.device.device_shelf import DeviceShelf
from warmstack.lora.device.device_tier import open_shelf

from ..shelf_kit import adapter_of, content, raw

pytestmark = pytest.mark.gpu

MIB = 1 << 20
LONG_CYCLES = 1_000_000_000
"""Half a second of a computing stream, against milliseconds of everything else here."""

MakeShelf = Callable[..., DeviceShelf]


@pytest.fixture(scope="module")
def adapters() -> list[Adapter]:
    return [adapter_of(name, 4 * MIB) for name in ("ink", "wash", "fox", "oil")]


@pytest.fixture
def make_shelf() -> Iterator[MakeShelf]:
    """Closed at the end; then the device has as much memory as before."""
    # Kernels and memory that come with their first use may hold the device up, and the tests watch who waits for whom.
    torch.empty(8 * MIB, dtype=torch.uint8, device="cuda").clone()
    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    gc.collect()
    before_bytes = torch.cuda.memory_allocated()
    made: list[DeviceShelf] = []

    def make(budget_bytes: int, **staging: int) -> DeviceShelf:
        options = {"slots": 4, "slot_bytes": MIB, **staging}
        made.append(DeviceShelf(DeviceTransfer(CudaDevice(), **options), ByteBudget(budget_bytes)))
        return made[-1]

    yield make
    for shelf in made:
        shelf.close()
        assert shelf.snapshot().used_bytes == 0
    torch.cuda.synchronize()
    gc.collect()
    # Less, when what an earlier test that failed has left behind is gone by now.
    assert torch.cuda.memory_allocated() <= before_bytes


def copy_stream(shelf: DeviceShelf) -> torch.cuda.Stream:
    copies = shelf._transfer._device
    assert isinstance(copies, CudaDevice)
    return copies._streams[0]


@pytest.mark.parametrize("staging", [{}, {"slots": 1}, {"slots": 16, "slot_bytes": 100_000, "fillers": 8}])
def test_what_was_sent_ahead_is_right_on_a_busy_stream(
    make_shelf: MakeShelf, adapters: list[Adapter], staging: dict[str, int]
) -> None:
    shelf = make_shelf(64 * MIB, **staging)
    torch.cuda._sleep(LONG_CYCLES // 10)
    for adapter in adapters:
        assert shelf.prefetch(adapter, 1) == "ready"
    assert shelf.snapshot().problem == ""
    for adapter in adapters:
        with shelf.wait_for_prefetch(adapter.key) as used:
            assert {key: raw(tensor) for key, tensor in used.tensors.items()} == content(adapter)


def test_a_copy_does_not_wait_for_the_computing_stream(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    shelf = make_shelf(64 * MIB)
    shelf.prefetch(adapters[0], 1)
    computing = torch.cuda.Event()
    torch.cuda._sleep(LONG_CYCLES)
    computing.record()
    shelf.prefetch(adapters[1], 1)
    shelf._places[adapters[1].key].upload.wait()
    assert not computing.query()
    torch.cuda.synchronize()


def test_the_computing_stream_waits_for_the_copy_and_the_thread_does_not(
    make_shelf: MakeShelf, adapters: list[Adapter]
) -> None:
    shelf = make_shelf(64 * MIB)
    consumer = torch.cuda.Stream()
    first, late = adapters[0], adapter_of("only here", 4 * MIB)
    # The slots are pinned, and the consumer has memory, before anybody is held up.
    shelf.prefetch(first, 1)
    with torch.cuda.stream(consumer), shelf.wait_for_prefetch(first.key) as used:
        assert raw(used.tensors["up"].clone()) == content(first)["up"]
    # A slot for each of its chunks: the thread need not wait for one.
    assert late.nbytes <= 4 * MIB
    with torch.cuda.stream(copy_stream(shelf)):
        torch.cuda._sleep(LONG_CYCLES)
    assert shelf.prefetch(late, 1) == "ready"
    with torch.cuda.stream(consumer), shelf.wait_for_prefetch(late.key) as used:
        copied = used.tensors["up"].clone()
        cloned = consumer.record_event()
    assert used.outcome == "join"
    assert not cloned.query()
    consumer.synchronize()
    assert raw(copied) == content(late)["up"]


def test_memory_goes_to_nobody_while_a_stream_works_with_it(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    ink, wash, *_ = adapters
    shelf = make_shelf(5 * MIB)
    with shelf.acquire(ink) as used:
        torch.cuda._sleep(LONG_CYCLES)
        copied = used.tensors["up"].clone()
    assert shelf.evict(ink.key)
    assert shelf.prefetch(wash, 0) == "no_room"
    torch.cuda.synchronize()
    assert shelf.prefetch(wash, 0) == "ready"
    torch.cuda.synchronize()
    assert raw(copied) == content(ink)["up"]


def test_a_use_that_was_dropped_is_waited_for_too(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    ink, wash, *_ = adapters
    shelf = make_shelf(5 * MIB)
    used = shelf.acquire(ink)
    torch.cuda._sleep(LONG_CYCLES)
    copied = used.tensors["up"].clone()
    del used
    assert shelf.prefetch(wash, 0) == "no_room"
    torch.cuda.synchronize()
    assert raw(copied) == content(ink)["up"]


def test_evicted_memory_is_used_again(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    shelf = make_shelf(5 * MIB)
    for adapter in adapters:
        shelf.acquire(adapter).release()
        torch.cuda.synchronize()
    reserved_bytes = torch.cuda.memory_reserved()
    for adapter in adapters * 5:
        shelf.acquire(adapter).release()
        torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() == reserved_bytes


def test_without_memory_nothing_is_kept_and_it_is_said(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    shelf = make_shelf(64 * MIB)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        assert shelf.prefetch(adapters[0], 0) == "no_room"
        assert "no room for" in shelf.snapshot().problem
        assert shelf.acquire(adapters[0]) is None
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    shelf.clear()
    assert shelf.prefetch(adapters[0], 0) == "ready"


def test_without_pinned_memory_it_still_arrives(
    make_shelf: MakeShelf, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise MemoryError("no pinned memory")

    monkeypatch.setattr(CudaDevice, "pin", refuse)
    shelf = make_shelf(64 * MIB)
    with shelf.acquire(adapters[0]) as used:
        assert raw(used.tensors["up"]) == content(adapters[0])["up"]
    assert "could not be pinned" in shelf.snapshot().problem
    assert shelf.snapshot().pinned_bytes == 0


def test_closing_while_copies_and_work_are_in_flight(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    shelf = make_shelf(64 * MIB)
    with shelf.acquire(adapters[0]) as used:
        torch.cuda._sleep(LONG_CYCLES // 10)
        copied = used.tensors["up"].clone()
    for adapter in adapters[1:]:
        shelf.prefetch(adapter, 1)
    shelf.close()
    assert raw(copied) == content(adapters[0])["up"]


def test_twins_are_the_hosts_views(make_shelf: MakeShelf) -> None:
    adapter = adapter_of("twins", MIB + 4, lead_bytes=4)
    up = adapter.tensors["up"]
    with make_shelf(64 * MIB).acquire(adapter) as used:
        twin = used.twins(adapter)
        for view in (up, up.T, up[1:5, 2:], up[::2]):
            assert twin(view).is_cuda
            assert torch.equal(twin(view).cpu(), view)
        assert not twin(up.view(torch.float32)).data_ptr() % 16


def test_anything_in_any_order_reads_the_right_bytes(make_shelf: MakeShelf, adapters: list[Adapter]) -> None:
    """Two computing streams and a bus, each of which lags behind now and then, and a budget of two adapters."""
    there = {adapter.key: adapter.tensors["up"].cuda() for adapter in adapters}
    shelf = make_shelf(9 * MIB, slots=2, fillers=2)
    streams = [torch.cuda.Stream() for _ in range(2)]
    wrong = [torch.zeros((), dtype=torch.int64, device="cuda") for _ in streams]
    torch.cuda.synchronize()
    choose = random.Random(3)
    for step in range(300):
        adapter = choose.choice(adapters)
        with torch.cuda.stream(copy_stream(shelf)):
            torch.cuda._sleep(choose.choice((1, 1_000_000)))
        shelf.prefetch(choose.choice(adapters), choose.randrange(4))
        lane = choose.randrange(2)
        with torch.cuda.stream(streams[lane]):
            used = shelf.acquire(adapter)
            if used is not None:
                torch.cuda._sleep(choose.choice((1, 200_000)))
                wrong[lane] += (used.tensors["up"] != there[adapter.key]).sum()
                if choose.random() < 0.8:
                    used.release()
            del used
        if step % 10 == 0:
            shelf.evict(choose.choice(adapters).key)
    torch.cuda.synchronize()
    assert [int(count) for count in wrong] == [0, 0]
    assert shelf.snapshot().peak_bytes <= 9 * MIB


def test_the_default_budget_is_a_share_of_what_is_free() -> None:
    shelf = open_shelf("cuda", None)
    assert 0 < shelf.limit_bytes <= 2 << 30
    shelf.close()
