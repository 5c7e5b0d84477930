"""Uploads: the tensors of one load to the GPUs that it names, through pinned memory that lives as long as the load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

import torch

from ..cancelling import Cancelled, never
from ..errors import SafetensorsLoadError
from ..transfer import DeviceTransfer
from .copy_device import CopyDevice, CopyEvent
from .cuda_device import CudaDevice

_BATCH_BYTES = 256 << 20
"""One device buffer for so many bytes of neighbours: a cast then needs no second copy of the whole file, and a tensor
that outlives the others keeps little."""
_LEAST_BYTES = 1 << 20
"""Below, torch's own copy is done before a slot is found."""


class Uploads:
    """Not thread-safe, and for one stream of each device. `close` returns when every byte has arrived.

    Each takes the next of torch's 32 streams, so the next load does not write to memory that a dropped model has freed
    while a stream that the allocator was not told of still reads it. Others get that memory when the device is full, or
    after `torch.cuda.empty_cache()`."""

    def __init__(self, make_device: Callable[[str], CopyDevice] = CudaDevice) -> None:
        self._make_device = make_device
        self._devices: dict[str, CopyDevice] = {}
        self._transfers: dict[str, DeviceTransfer] = {}
        self._followed: dict[str, CopyEvent] = {}

    def __enter__(self) -> Uploads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def takes(device: str) -> bool:
        """Whether tensors for `device` go this way."""
        return device.startswith("cuda")

    def find(self, device: str) -> CopyDevice:
        """RuntimeError when it is not there."""
        found = self._devices.get(device)
        if found is None:
            found = self._devices[device] = self._make_device(device)
        return found

    def place(
        self,
        path: str,
        tensors: Mapping[str, torch.Tensor],
        device: str,
        dtype: torch.dtype | None,
        cancelled: Cancelled = never,
    ) -> dict[str, torch.Tensor]:
        """`tensors`, all on the CPU, on `device`, floating-point ones as `dtype`. For the caller's current stream.

        RuntimeError when the device is not there, SafetensorsLoadError when it is full or refuses a copy,
        LoadCancelledError between two slots once `cancelled()` is true; `path` is for these."""
        placed: dict[str, torch.Tensor] = {}
        for batch in _batches(tensors):
            if sum(tensor.nbytes for tensor in batch.values()) < _LEAST_BYTES:
                arrived: Mapping[str, torch.Tensor] = {key: tensor.to(device) for key, tensor in batch.items()}
            else:
                arrived = self._send(path, batch, device, cancelled)
            batch_placed = {key: _cast(tensor, dtype) for key, tensor in arrived.items()}
            if any(batch_placed[key] is not tensor for key, tensor in arrived.items()):
                self.follow(device)
            placed |= batch_placed
        return placed

    def follow(self, device: str) -> None:
        """Let `close` wait for what the caller's current stream has queued on `device` by now."""
        self._followed[device] = self.find(device).queued()

    def close(self) -> None:
        """After that, the tensors are there for every stream."""
        for transfer in self._transfers.values():
            # It waits for the last copy from each of its slots, and every copy came from one.
            transfer.release()
        self._transfers.clear()
        # A load in a thread of its own casts on the default stream, which a caller's stream does not wait for.
        for moment in self._followed.values():
            moment.wait()
        self._followed.clear()

    def _send(
        self, path: str, batch: Mapping[str, torch.Tensor], device: str, cancelled: Cancelled
    ) -> Mapping[str, torch.Tensor]:
        transfer = self._transfers.get(device)
        if transfer is None:
            transfer = self._transfers[device] = DeviceTransfer(self.find(device))
        upload = transfer.upload(path, batch, cancelled=cancelled)
        if not upload.on_device:
            raise SafetensorsLoadError(path, f"{next(iter(batch))!r} cannot go to {device}: {upload.reasons[-1]}")
        return upload.use()


def _batches(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    batch: dict[str, torch.Tensor] = {}
    batch_bytes = 0
    for key, tensor in tensors.items():
        if batch and batch_bytes + tensor.nbytes > _BATCH_BYTES:
            yield batch
            batch, batch_bytes = {}, 0
        batch[key] = tensor
        batch_bytes += tensor.nbytes
    if batch:
        yield batch


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
