"""Uploads on a real GPU; what a fake can show stands in test_transfer.py."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from warmstack.loaders import CopyDevice, CudaDevice, DeviceTransfer
from warmstack.loaders.upload.upload_layout import ALIGN_BYTES

from .transfer_kit import assert_arrived, raw, source_of

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("slots", "streams"), [(1, 1), (3, 1), (3, 2)])
def test_a_gpu_gets_the_bytes(slots: int, streams: int):
    sources = [source_of([(1, 1), (90_000, 3), (70_000, 1)] * 20, seed) for seed in range(4)]
    device: CopyDevice = CudaDevice(streams=streams)
    with DeviceTransfer(device, slots=slots, slot_bytes=1 << 20) as transfer:
        uploads = [transfer.upload("ink", source.tensors, buffer=source.buffer) for source in sources]
        assert all(upload.on_device and not upload.reasons for upload in uploads)
        for upload, source in zip(uploads, sources, strict=True):
            uploaded = upload.use()
            assert not any(tensor.data_ptr() % ALIGN_BYTES for tensor in uploaded.values())
            assert_arrived(uploaded, source)


def test_a_gpu_keeps_the_memory_of_what_another_stream_still_uses():
    source, *others = [source_of([(1 << 22, 3)], seed) for seed in range(4)]
    consumer = torch.cuda.Stream()
    with DeviceTransfer(CudaDevice()) as transfer:
        # What they take of the device is there before anybody is held up.
        for upload in [transfer.upload("other", other.tensors, buffer=other.buffer) for other in others]:
            upload.wait()
        upload = transfer.upload("ink", source.tensors, buffer=source.buffer)
        with torch.cuda.stream(consumer):
            copied = torch.empty(1 << 22, device="cuda")
            # Half a second, against milliseconds of what follows.
            torch.cuda._sleep(1_000_000_000)
            copied.copy_(upload.use()["t0"])
            read = consumer.record_event()
        del upload
        for other in others:
            transfer.upload("other", other.tensors, buffer=other.buffer).wait()
        assert not read.query(), "they came too late to write to memory that was still to be read"
        consumer.synchronize()
        assert raw(copied) == raw(source.tensors["t0"])


def test_a_gpu_gives_an_upload_no_memory_that_queued_work_still_reads():
    """Freed memory is its own stream's at once, and any other stream's only after what is queued there."""
    source, other = (source_of([(1 << 22, 3)], seed) for seed in range(2))
    with DeviceTransfer(CudaDevice()) as transfer:
        # What it takes of the device is there, and free, before anybody is held up.
        upload = transfer.upload("other", other.tensors, buffer=other.buffer)
        upload.wait()
        freed = torch.full((upload.nbytes,), 7, dtype=torch.uint8, device="cuda")
        del upload
        copied = torch.empty_like(freed)
        torch.cuda.synchronize()
        # Half a second, against milliseconds of what follows.
        torch.cuda._sleep(1_000_000_000)
        copied.copy_(freed)
        read = torch.cuda.current_stream().record_event()
        del freed
        transfer.upload("ink", source.tensors, buffer=source.buffer).wait()
        assert not read.query(), "it came too late to write to memory that was still to be read"
        overwritten = int((copied != 7).sum())
        assert overwritten == 0


def test_a_gpu_without_room_leaves_the_tensors_on_the_host():
    source = source_of([(1 << 22, 3)])
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with DeviceTransfer(CudaDevice()) as transfer:
            upload = transfer.upload("ink", source.tensors, buffer=source.buffer)
            assert not upload.on_device
            assert "no room for" in upload.reasons[0]
            assert upload.use() is source.tensors
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


ON_THE_SECOND_GPU = """
import torch
from warmstack.loaders import CudaDevice, DeviceTransfer
weight = torch.arange(1 << 20)
with DeviceTransfer(CudaDevice("cuda:1"), fillers=2) as transfer:
    sent = transfer.upload("ink", {"up": weight}).use()["up"]
assert torch.equal(sent.cpu(), weight)
assert [torch._C._cuda_hasPrimaryContext(index) for index in range(2)] == [False, True]
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_what_goes_to_one_gpu_takes_nothing_of_another():
    """In a process of its own: every context lasts as long as one."""
    subprocess.run([sys.executable, "-c", ON_THE_SECOND_GPU], check=True, timeout=100)
