"""From the disk into the slots and to the device, without host memory in between; and one block of memory as it is."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from warmstack.loaders import (
    CudaDevice,
    DeviceTransfer,
    FakeDevice,
    LoadCancelledError,
    ModelLoader,
    Pace,
    SafetensorsLoadError,
    read_header,
    read_tensors,
)
from warmstack.loaders.reading.flat_views import FlatViews, TensorSpec, specs_of_tensors
from warmstack.loaders.transfer import staging_of
from warmstack.loaders.upload.sending import chunk_spans
from warmstack.loaders.upload.upload_source import MemorySource

SameTensors = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], None]


@pytest.mark.parametrize("fillers", [1, 4])
@pytest.mark.parametrize("lag", [0, 3, 1 << 30])
def test_a_file_goes_from_the_disk_into_the_slots(
    fillers: int, lag: int, saved: str, state_dict: dict[str, torch.Tensor], same_tensors: SameTensors
):
    device = FakeDevice(lag=lag)
    with DeviceTransfer(device, slots=3, slot_bytes=100, fillers=fillers) as transfer:
        upload = transfer.upload_file(saved)
        same_tensors(dict(upload.use()), state_dict)
    assert upload.nbytes == read_header(saved).data_bytes
    assert (device.overwritten, device.pinned_bytes, device.pins) == (0, 0, 1)


@pytest.mark.parametrize("first", [True, False])
def test_inference_mode_is_no_obstacle_to_other_threads(
    first: bool, saved: str, state_dict: dict[str, torch.Tensor], same_tensors: SameTensors
):
    """It is the caller's thread's alone, and the slots serve uploads inside of it and outside."""
    with DeviceTransfer(FakeDevice(), slots=3, slot_bytes=100, fillers=4) as transfer:
        for inside in (first, not first):
            with torch.inference_mode(inside):
                uploads = transfer.upload_file(saved), transfer.upload("ink", state_dict)
                for upload in uploads:
                    same_tensors(dict(upload.use()), state_dict)


def test_nothing_is_read_into_memory_of_its_own(saved: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("host memory was allocated")

    monkeypatch.setattr("warmstack.loaders.reading.private.allocate", refuse)
    with DeviceTransfer(FakeDevice()) as transfer:
        assert transfer.upload_file(saved).on_device


def test_a_file_that_changes_meanwhile_is_not_handed_out(saved: str):
    def touch(path: str, *_: object) -> None:
        os.utime(path, ns=(1, 1))

    transfer = DeviceTransfer(FakeDevice(), slots=2, slot_bytes=100)
    with transfer, pytest.raises(SafetensorsLoadError, match="changed while it was being read"):
        transfer.upload_file(saved, pace=Pace(reached=touch))


def test_a_cancelled_upload_stops_reading(saved: str):
    read: list[int] = []
    pace = Pace(lambda: len(read) > 1, None, lambda _path, nbytes, at: read.append(nbytes))
    device = FakeDevice()
    with DeviceTransfer(device, slots=2, slot_bytes=50, fillers=1) as transfer, pytest.raises(LoadCancelledError):
        transfer.upload_file(saved, pace=pace)
    assert read == [50, 50]
    assert (device.in_flight, device.allocated_bytes) == (0, 0)


def test_a_truncated_file_names_itself_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "ink.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    header = read_header(path)
    os.truncate(path, header.file_bytes - 100)
    os.utime(path, ns=(header.mtime_ns, header.mtime_ns))
    device = FakeDevice()
    transfer = DeviceTransfer(device, slots=2, slot_bytes=1 << 10)
    with transfer, pytest.raises(SafetensorsLoadError, match=r"ink\.safetensors"):
        transfer.upload_file(path, header=header)
    assert (device.in_flight, device.allocated_bytes) == (0, 0)


def test_without_room_there_are_no_tensors_and_it_is_said(saved: str):
    with DeviceTransfer(FakeDevice(memory_limit_bytes=10)) as transfer:
        upload = transfer.upload_file(saved)
    assert (upload.on_device, dict(upload.use())) == (False, {})
    assert "no room for" in upload.reasons[0]


def test_several_threads_fill_slots_at_the_same_time():
    """Each writer waits until all of them write: one after the other, they would wait for ever."""
    together = threading.Barrier(3, timeout=30)

    class Source:
        nbytes = 300
        is_shared = True

        def write(self, start: int, slot: torch.Tensor) -> None:
            together.wait()
            slot.fill_(start // 100)

        def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"all": buffer}

    with DeviceTransfer(FakeDevice(), slots=3, slot_bytes=100, fillers=3) as transfer:
        upload = transfer.send("ink", Source())
        assert upload.use()["all"].tolist() == [0] * 100 + [1] * 100 + [2] * 100


class FailingSource:
    """The caller's thread fails once another one writes beside it; `second` is what that one then does."""

    nbytes = 10_000
    is_shared = True

    def __init__(self, second: Callable[[], None]) -> None:
        self.written = 0
        self._second = second
        self._caller = threading.current_thread()
        self._together = threading.Barrier(2, timeout=30)

    def write(self, start: int, slot: torch.Tensor) -> None:
        self.written += 1
        if threading.current_thread() is self._caller:
            self._together.wait()
            raise SafetensorsLoadError("ink", "is gone")
        if self.written <= 2:
            self._together.wait()
            self._second()

    def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


def test_the_writer_that_fails_stops_the_others():
    source, device = FailingSource(lambda: None), FakeDevice()
    transfer = DeviceTransfer(device, slots=4, slot_bytes=10, fillers=2)
    with transfer, pytest.raises(SafetensorsLoadError, match="is gone"):
        transfer.send("ink", source)
    assert source.written < 1000
    assert device.allocated_bytes == 0


def test_nobody_writes_any_more_when_an_upload_has_failed():
    returned, too_late = threading.Event(), []
    source = FailingSource(lambda: too_late.append(returned.wait(0.2)))
    with DeviceTransfer(FakeDevice(), slots=4, slot_bytes=10, fillers=2) as transfer:
        with pytest.raises(SafetensorsLoadError, match="is gone"):
            transfer.send("ink", source)
        returned.set()
    assert too_late == [False]


@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=8),
    lead_bytes=st.integers(0, 20),
    slots=st.integers(1, 4),
    slot_bytes=st.integers(1, 300),
    fillers=st.integers(1, 4),
    lag=st.integers(0, 5),
)
def test_memory_arrives_as_it_stands(
    sizes: list[int], lead_bytes: int, slots: int, slot_bytes: int, fillers: int, lag: int
):
    buffer = bytearray(index % 251 for index in range(lead_bytes + sum(sizes) + 8))
    tensors, start = {}, lead_bytes
    for index, size in enumerate(sizes):
        dtype = (torch.uint8, torch.int16, torch.float32)[index % 3]
        count = size // dtype.itemsize
        empty = torch.empty(0, dtype=dtype)
        tensors[f"t{index}"] = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start) if count else empty
        start += size
    specs = specs_of_tensors(tensors, buffer)
    assert specs is not None
    device = FakeDevice(lag=lag)
    with DeviceTransfer(device, slots=slots, slot_bytes=slot_bytes, fillers=fillers) as transfer:
        arrived = transfer.send("ink", MemorySource(buffer, specs)).use()
        assert list(arrived) == list(tensors)
        for key, tensor in tensors.items():
            assert arrived[key].dtype == tensor.dtype
            assert torch.equal(arrived[key].view(torch.uint8), tensor.view(torch.uint8))
    assert device.overwritten == 0
    del arrived
    assert (device.allocated_bytes, device.pinned_bytes) == (0, 0)


def test_a_pool_that_lags_behind_keeps_nothing_of_an_upload():
    """Its one thread is busy elsewhere, so that the task of this upload stays in its queue."""
    busy, go_on = threading.Event(), threading.Event()

    class Caller:
        def never(self) -> bool:
            return False

    buffer, caller = bytearray(64), Caller()
    specs = specs_of_tensors({"all": torch.frombuffer(buffer, dtype=torch.uint8)}, buffer)
    assert specs is not None
    transfer = DeviceTransfer(FakeDevice(), slots=2, slot_bytes=16, fillers=2)
    with transfer, transfer._using_staging() as staging:
        assert staging.pool is not None
        blocking = staging.pool.submit(lambda: (busy.set(), go_on.wait(30)))
        assert busy.wait(30)
        transfer.send("ink", MemorySource(buffer, specs), cancelled=caller.never)
        gone = weakref.ref(caller)
        del caller
        assert gone() is None
        go_on.set()
        blocking.result()


def test_a_copy_of_what_is_not_aligned_is_for_one_use():
    """Another stream may ask before the first one has made it."""
    buffer = torch.arange(12, dtype=torch.uint8)
    views = FlatViews(buffer, {"view": TensorSpec(torch.int32, (), 4, 4), "copy": TensorSpec(torch.int32, (), 6, 4)})
    first = views["copy"]
    assert views["view"] is views["view"]
    buffer.zero_()
    assert (int(first), int(views["copy"])) == (0x09080706, 0)


def test_every_view_is_on_the_device_of_its_buffer(fake_gpu: torch.device):
    buffer = torch.empty(128, dtype=torch.uint8, device=fake_gpu)
    starts = {"view": (4, 60), "copy": (5, 60), "empty": (0, 0)}
    specs = {key: TensorSpec(torch.float32, (nbytes // 4,), start, nbytes) for key, (start, nbytes) in starts.items()}
    assert {tensor.device for tensor in FlatViews(buffer, specs).values()} == {fake_gpu}


@pytest.mark.gpu
def test_a_gpu_copies_what_is_not_aligned_for_each_stream():
    buffer = bytearray(index % 251 for index in range(2 + (4 << 20)))
    source = MemorySource(buffer, {"odd": TensorSpec(torch.float32, (1 << 20,), 2, 4 << 20)})
    one, other = torch.cuda.Stream(), torch.cuda.Stream()
    for stream in (one, other):
        with torch.cuda.stream(stream):
            # The memory that its copy takes is there before anybody is held up, and holds something else.
            torch.zeros(1 << 20, device="cuda")
    with DeviceTransfer(CudaDevice()) as transfer:
        upload = transfer.send("odd", source)
    with torch.cuda.stream(one):
        torch.cuda._sleep(1_000_000_000)
        first = upload.use()["odd"]
    with torch.cuda.stream(other):
        copied = upload.use()["odd"].clone()
    other.synchronize()
    assert copied.cpu().view(torch.uint8).numpy().tobytes() == buffer[2:]
    one.synchronize()
    assert torch.equal(first.cpu().view(torch.uint8), copied.cpu().view(torch.uint8))


def test_views_of_elsewhere_are_not_taken_for_part_of_the_block():
    buffer = bytearray(64)
    inside = torch.frombuffer(buffer, dtype=torch.uint8)
    assert specs_of_tensors({"a": inside, "b": torch.ones(3)}, buffer) is None
    assert specs_of_tensors({"turned": inside.view(8, 8).T}, buffer) is None
    assert list(specs_of_tensors({"a": inside[5:], "b": inside[:0]}, buffer) or ()) == ["a", "b"]


def test_a_lora_read_privately_is_one_block(saved: str):
    loaded = read_tensors(saved)
    specs = specs_of_tensors(loaded.tensors, loaded.buffer)
    assert specs is not None
    assert {key: spec.start for key, spec in specs.items() if spec.nbytes} == {
        key: entry.start for key, entry in loaded.header.tensors.items() if entry.end > entry.start
    }


@given(nbytes=st.integers(0, 1 << 28), slot_bytes=st.integers(1 << 16, 1 << 24), threads=st.integers(1, 8))
def test_spans_cover_everything_once_and_begin_small(nbytes: int, slot_bytes: int, threads: int):
    spans = chunk_spans(nbytes, slot_bytes, threads)
    assert [start for start, _ in spans] == [0, *(end for _, end in spans)][: len(spans)]
    assert (spans[-1][1] if spans else 0) == nbytes
    sizes = [end - start for start, end in spans]
    assert max(sizes, default=0) <= slot_bytes
    assert sizes[:-1] == sorted(sizes[:-1])
    assert all(size <= 1 << 20 for size in sizes[:threads])


@pytest.mark.parametrize(
    ("pinned_bytes", "slots", "slot_bytes"),
    [
        (128 << 20, 16, 8 << 20),
        (200 << 20, 16, 8 << 20),
        (1 << 20, 16, 1 << 16),
        (100_000, 1, 1 << 16),
        (0, 1, 1 << 16),
    ],
)
def test_a_budget_of_pinned_memory_is_cut_into_slots(pinned_bytes: int, slots: int, slot_bytes: int):
    assert staging_of(pinned_bytes) == (slots, slot_bytes)


def test_memory_given_back_is_poisoned_under_whoever_still_looks():
    device = FakeDevice()
    buffer = device.allocate(4, 0)
    device.copy(buffer, device.pin(4).fill_(1), 0).wait()
    early, late = device.read_later(buffer), None
    assert early.seen == b"\1\1\1\1"
    late = device.read_later(buffer)
    del buffer
    assert late.seen == b"\xa5" * 4


def test_memory_that_the_computing_stream_was_told_of_waits_for_it():
    device = FakeDevice()
    buffer = device.allocate(4, 0)
    event = device.copy(buffer, device.pin(4).fill_(1), 0)
    fence = event.order(buffer)
    reading = device.read_later(buffer)
    moment = fence()
    del buffer
    assert (moment.done, device.allocated_bytes) == (False, 4)
    assert reading.seen == b"\1\1\1\1"
    device.compute_all()
    assert (moment.done, device.allocated_bytes) == (True, 0)


@pytest.mark.gpu
@pytest.mark.parametrize("inference_mode", [False, True])
@pytest.mark.parametrize(("slots", "fillers"), [(1, 1), (16, 8)])
def test_a_gpu_gets_a_file_from_the_disk(
    large: tuple[str, dict[str, torch.Tensor]], slots: int, fillers: int, inference_mode: bool
):
    path, tensors = large
    transfer = DeviceTransfer(CudaDevice(), slots=slots, slot_bytes=1 << 20, fillers=fillers)
    with transfer, torch.inference_mode(inference_mode):
        upload = transfer.upload_file(path)
        assert upload.reasons == ()
        arrived = upload.use()
        for key, tensor in tensors.items():
            assert arrived[key].is_cuda
            assert torch.equal(arrived[key].cpu(), tensor), key


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_gpu_gets_a_model_through_the_slots(
    saved: str, same_tensors: SameTensors, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("warmstack.loaders.upload.uploads._LEAST_BYTES", 0)
    here, there = ModelLoader(dtype=dtype), ModelLoader(dtype=dtype, device="cuda")
    arrived = there.load_checkpoint(saved)
    assert all(tensor.is_cuda for tensor in arrived.values())
    same_tensors({key: tensor.cpu() for key, tensor in arrived.items()}, dict(here.load_checkpoint(saved)))
