from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from warmstack.loaders import (
    CudaDevice,
    DeviceTransfer,
    FakeDevice,
    LoadCancelledError,
    SafetensorsLoadError,
    dequantise,
    map_tensors,
    read_tensors,
    upload_packed,
)
from warmstack.loaders.gguf.packed import PackedTensor
from warmstack.loaders.gguf.quant_types import GGUF_TYPES
from warmstack.loaders.reading.tensor_file import TensorFile
from warmstack.loaders.upload.upload_layout import ALIGN_BYTES

from .transfer_kit import DTYPES, Source, assert_arrived, raw, source_of

SameTensors = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], None]

SIZES = st.lists(st.tuples(st.integers(0, 90), st.integers(0, len(DTYPES) - 1)), max_size=12)


@given(
    files=st.lists(SIZES, min_size=1, max_size=4),
    slots=st.integers(1, 4),
    slot_bytes=st.integers(1, 200),
    streams=st.integers(1, 3),
    lag=st.integers(0, 5),
    cancel_after=st.none() | st.integers(0, 9),
    failing_copy=st.none() | st.integers(0, 9),
    can_pin=st.booleans(),
    shared_buffer=st.booleans(),
)
@example([[(90, 4)] * 4], 2, 64, 1, 5, None, None, True, True)
def test_whatever_happens_bytes_arrive_or_nothing_does_and_no_pinned_byte_is_left(
    files: list[list[tuple[int, int]]],
    slots: int,
    slot_bytes: int,
    streams: int,
    lag: int,
    cancel_after: int | None,
    failing_copy: int | None,
    can_pin: bool,
    shared_buffer: bool,
) -> None:
    limit = None if can_pin else slots * slot_bytes - 1
    device = FakeDevice(streams=streams, lag=lag, pinned_limit_bytes=limit, failing_copy=failing_copy)
    asked = iter(range(1 << 30))
    transfer = DeviceTransfer(device, slots=slots, slot_bytes=slot_bytes)
    sources, uploads = [source_of(sizes, seed) for seed, sizes in enumerate(files)], []
    for source in sources:
        try:
            upload = transfer.upload(
                "ink.safetensors",
                source.tensors,
                buffer=source.buffer if shared_buffer else None,
                cancelled=lambda: cancel_after is not None and next(asked) >= cancel_after,
            )
        except LoadCancelledError:
            assert cancel_after is not None
            continue
        except SafetensorsLoadError:
            assert failing_copy is not None
            continue
        assert upload.on_device == (upload.nbytes > 0)
        assert bool(upload.reasons) == (upload.on_device and not can_pin)
        uploads.append((upload, source))
    assert device.peak_in_flight <= slots
    for upload, source in reversed(uploads):
        assert_arrived(upload.use(), source)
        assert upload.done
    assert device.pins <= 1
    assert transfer.pinned_bytes == device.pinned_bytes
    transfer.release()
    assert all(event.done for event in device.events)
    assert (device.overwritten, device.in_flight, device.pinned_bytes, transfer.pinned_bytes) == (0, 0, 0, 0)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_the_next_slots_are_filled_while_the_bus_is_busy(slots: int):
    source = source_of([(90, 4)] * 8)
    device = FakeDevice()
    with DeviceTransfer(device, slots=slots, slot_bytes=512) as transfer:
        upload = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer)
        assert device.peak_in_flight == slots
        assert not upload.done
        upload.wait()
        assert upload.done
        assert_arrived(upload.use(), source)


def test_one_copy_per_slot_however_many_tensors():
    source = source_of([(1, 1), (50, 1), (50, 1)] * 200)
    device = FakeDevice()
    with DeviceTransfer(device, slots=2, slot_bytes=1 << 15) as transfer:
        upload = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer)
        assert device.copies == -(-upload.nbytes // (1 << 15)) == 2


def test_what_starts_anywhere_in_the_file_starts_aligned_on_the_device():
    source = source_of([(1, 1), (7, 3), (3, 0), (9, 4), (5, 2)])
    with DeviceTransfer(FakeDevice()) as transfer:
        uploaded = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer).use()
    assert any(tensor.data_ptr() % ALIGN_BYTES for tensor in source.tensors.values())
    assert not any(tensor.data_ptr() % ALIGN_BYTES for tensor in uploaded.values())
    assert len({tensor.untyped_storage().data_ptr() for tensor in uploaded.values()}) == 1


def test_the_staging_memory_is_pinned_once_and_again_after_a_release():
    source = source_of([(90, 4)])
    device = FakeDevice()
    transfer = DeviceTransfer(device, slots=3, slot_bytes=256)
    assert (device.pins, transfer.pinned_bytes) == (0, 0)
    for _ in range(3):
        transfer.upload("ink.safetensors", source.tensors)
    assert (device.pins, device.pinned_bytes, transfer.pinned_bytes) == (1, 768, 768)
    transfer.release()
    transfer.release()
    assert (device.pinned_bytes, transfer.pinned_bytes) == (0, 0)
    assert_arrived(transfer.upload("ink.safetensors", source.tensors).use(), source)
    assert device.pins == 2
    transfer.release()


def test_a_release_during_an_upload_gives_the_memory_back_at_its_end():
    source = source_of([(90, 4)] * 8)
    device = FakeDevice()
    transfer = DeviceTransfer(device, slots=2, slot_bytes=512)

    def release() -> bool:
        transfer.release()
        assert device.pinned_bytes == 1024
        return False

    upload = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer, cancelled=release)
    assert device.pinned_bytes == 0
    assert_arrived(upload.use(), source)


def test_a_cancel_is_seen_between_two_slots():
    source = source_of([(90, 4)] * 8)
    device = FakeDevice()
    asked = iter([False, False, False, True])
    with DeviceTransfer(device, slots=2, slot_bytes=512) as transfer:
        with pytest.raises(LoadCancelledError, match=r"^ink.safetensors: cancelled"):
            transfer.upload("ink.safetensors", source.tensors, cancelled=lambda: next(asked))
        assert device.copies == 3
        # Nothing may still write to the buffer that was dropped.
        assert device.in_flight == 0
        assert_arrived(transfer.upload("ink.safetensors", source.tensors).use(), source)


def test_a_refused_copy_names_the_file_and_leaves_the_ring_usable():
    source = source_of([(90, 4)] * 8)
    device = FakeDevice(failing_copy=3)
    with DeviceTransfer(device, slots=2, slot_bytes=512) as transfer:
        with pytest.raises(SafetensorsLoadError, match=r"^ink.safetensors: cannot go to cpu: the bus is broken$"):
            transfer.upload("ink.safetensors", source.tensors)
        assert device.in_flight == 0
        assert_arrived(transfer.upload("ink.safetensors", source.tensors).use(), source)


def test_memory_that_cannot_be_pinned_is_replaced_and_said():
    source = source_of([(90, 4)] * 8)
    device = FakeDevice(pinned_limit_bytes=100)
    with DeviceTransfer(device, slots=2, slot_bytes=512) as transfer:
        upload = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer)
        assert upload.on_device
        assert upload.reasons == ("copied from pageable memory, since 1024 bytes could not be pinned: "
                                  "no 1024 bytes to pin",)  # fmt: skip
        assert transfer.pinned_bytes == 0
        assert_arrived(upload.use(), source)


def test_without_room_on_the_device_the_tensors_stay_on_the_host_and_it_is_said():
    source = source_of([(90, 4)] * 8)
    with DeviceTransfer(FakeDevice(memory_limit_bytes=100)) as transfer:
        upload = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer)
        assert (upload.on_device, upload.nbytes, upload.done) == (False, 0, True)
        assert upload.reasons == ("no room for 5760 bytes on cpu, left on the host: no 5760 bytes on the device",)
        assert upload.use() is source.tensors


def test_who_reads_without_asking_for_the_order_reads_poison():
    """The fake does show a missing wait."""
    source = source_of([(90, 4)])
    with DeviceTransfer(FakeDevice()) as transfer:
        upload = transfer.upload("ink.safetensors", source.tensors)
        assert raw(upload._tensors["t0"]) == b"\xa5" * 720
        assert_arrived(upload.use(), source)


def test_the_fake_tells_of_a_source_that_was_overwritten_too_early():
    device = FakeDevice()
    slot, target = device.pin(4), device.allocate(4, 0)
    event = device.copy(target, slot.fill_(1), 0)
    slot.fill_(2)
    event.wait()
    assert device.overwritten == 1


@pytest.mark.parametrize("slots", [1, 3])
def test_threads_share_the_slots(slots: int):
    sources = [source_of([(90, 4), (3, 1)] * 20, seed) for seed in range(4)]
    device = FakeDevice(streams=2, lag=2)
    transfer = DeviceTransfer(device, slots=slots, slot_bytes=300)
    failures: list[object] = []

    def upload(source: Source) -> None:
        for _ in range(5):
            uploaded = transfer.upload("ink.safetensors", source.tensors, buffer=source.buffer).use()
            failures.extend(key for key, tensor in source.tensors.items() if raw(uploaded[key]) != raw(tensor))

    threads = [threading.Thread(target=upload, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    transfer.release()
    assert (failures, device.overwritten, device.pins, device.pinned_bytes) == ([], 0, 1, 0)


@pytest.mark.parametrize("load", [read_tensors, map_tensors])
def test_a_file_arrives_whole(
    load: Callable[[str], TensorFile], saved: str, state_dict: dict[str, torch.Tensor], same_tensors: SameTensors
):
    loaded = load(saved)
    with DeviceTransfer(FakeDevice(), slot_bytes=100) as transfer:
        upload = transfer.upload(saved, loaded.tensors, buffer=loaded.buffer)
        same_tensors(dict(upload.use()), state_dict)


def test_tied_transposed_and_foreign_tensors_arrive_as_they_are():
    source = source_of([(24, 3), (24, 3)])
    first, second = source.tensors.values()
    tensors = {
        "second": second,
        "first": first,
        "again": second,
        "turned": first.reshape(4, 6).T,
        "foreign": torch.arange(5.0, requires_grad=True),
        "scalar": torch.tensor(3, dtype=torch.int64),
    }
    with DeviceTransfer(FakeDevice(), slot_bytes=100) as transfer:
        uploaded = transfer.upload("ink.safetensors", tensors, buffer=source.buffer).use()
    for key, tensor in tensors.items():
        assert torch.equal(uploaded[key], tensor), key
        assert uploaded[key].is_contiguous()


def test_only_what_is_on_the_cpu_is_taken():
    with DeviceTransfer(FakeDevice()) as transfer, pytest.raises(ValueError, match="'far' is on meta"):
        transfer.upload("ink.safetensors", {"far": torch.empty(3, device="meta")})


@pytest.mark.parametrize("arguments", [{"slots": 0}, {"slot_bytes": 0}])
def test_a_ring_without_room_is_refused(arguments: dict[str, int]):
    with pytest.raises(ValueError, match="hold nothing"):
        DeviceTransfer(FakeDevice(), **arguments)


@pytest.mark.parametrize("memory_limit_bytes", [None, 10])
def test_packed_tensors_are_sent_packed_and_dequantised_there(memory_limit_bytes: int | None):
    device = FakeDevice(memory_limit_bytes=memory_limit_bytes)
    kinds = {"a": GGUF_TYPES["Q8_0"], "b": GGUF_TYPES["Q4_K"], "c": GGUF_TYPES["Q8_K"]}
    generator = np.random.default_rng(5)
    packed = {}
    for key, kind in kinds.items():
        blocks = generator.integers(0, 64, (3, kind.block_bytes), np.uint8)
        data = torch.from_numpy(blocks.reshape(-1))
        packed[key] = PackedTensor(key, kind, (3, kind.block_elements), data, "as asked")
    with DeviceTransfer(device, slot_bytes=64) as transfer:
        result = upload_packed(transfer, "ink.gguf", packed, torch.float32)
    assert list(result.tensors) == ["a", "b"]
    for key, tensor in result.tensors.items():
        item = packed[key]
        assert raw(tensor) == dequantise(item.data.numpy(), item.type.name, item.shape).tobytes()
    assert raw(result.packed["c"].data) == raw(packed["c"].data)
    assert bool(result.reasons) == (memory_limit_bytes is not None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_cuda_device_says_so():
    with pytest.raises(RuntimeError, match="cuda: torch sees no CUDA device here"):
        CudaDevice()
