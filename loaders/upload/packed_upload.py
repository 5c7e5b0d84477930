"""Packed GGUF bytes to a device, and to numbers there: a half to a tenth of the bytes cross the bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from ..gguf.on_numpy import refusal
from ..gguf.packed import PackedTensor
from ..transfer import DeviceTransfer


class UploadedPacked(NamedTuple):
    """Either here or there, each in the order of what was sent."""

    tensors: dict[str, torch.Tensor]
    packed: dict[str, PackedTensor]
    """Types that nothing dequantises."""
    reasons: tuple[str, ...]
    """Those of the `Upload`."""


def upload_packed(
    transfer: DeviceTransfer, name: str, packed: Mapping[str, PackedTensor], dtype: torch.dtype = torch.float16
) -> UploadedPacked:
    """Send the bytes of `packed`, all on the CPU, and dequantise them on the caller's current stream.

    The device holds the packed bytes and the numbers until this returns, and longer if any tensor stays packed. Without
    room for the bytes, the numbers are made on the host. Raises as `DeviceTransfer.upload` and
    `PackedTensor.dequantise` do."""
    upload = transfer.upload(name, {key: item.data for key, item in packed.items()})
    arrived = {key: replace(packed[key], data=data) for key, data in upload.use().items()}
    tensors = {key: item.dequantise(dtype) for key, item in arrived.items() if not refusal(item.type)}
    return UploadedPacked(tensors, {key: item for key, item in arrived.items() if key not in tensors}, upload.reasons)
