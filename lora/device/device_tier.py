"""open_shelf: the device shelf of a GPU, or the reason why there is none."""

from __future__ import annotations

import torch

from ...loaders.transfer import DEFAULT_PINNED_BYTES, DeviceTransfer, staging_of
from ...loaders.upload.cuda_device import CudaDevice
from ..cache.budget import ByteBudget
from ..errors import LoraError
from .device_shelf import DeviceShelf

_DEFAULT_SHARE = 8
_MOST_DEFAULT_BYTES = 2 << 30


class DeviceRefusedError(LoraError):
    """Adapters cannot be kept on this device. One line, with the cure."""


def open_shelf(device: torch.device | str, limit_bytes: int | None, pinned_bytes: int | None = None) -> DeviceShelf:
    """A shelf on `device` of at most `limit_bytes` (None: an eighth of what is free there now, at most 2 GiB), with
    staging memory of `pinned_bytes`.

    Raises DeviceRefusedError where there is no CUDA device."""
    place = torch.device(device)
    if place.type != "cuda":
        raise DeviceRefusedError(f"adapters are kept on CUDA devices only, not on {place}; run the pipeline on one")
    try:
        copies = CudaDevice(place)
        if limit_bytes is None:
            free_bytes, _ = torch.cuda.mem_get_info(copies.device)
            limit_bytes = min(free_bytes // _DEFAULT_SHARE, _MOST_DEFAULT_BYTES)
    except (RuntimeError, AssertionError) as error:
        # AssertionError: what torch raises for CUDA in a build without it.
        raise DeviceRefusedError(str(error).partition("\n")[0]) from error
    slots, slot_bytes = staging_of(DEFAULT_PINNED_BYTES if pinned_bytes is None else pinned_bytes)
    return DeviceShelf(DeviceTransfer(copies, slots=slots, slot_bytes=slot_bytes), ByteBudget(limit_bytes))
