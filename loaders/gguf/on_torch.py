"""Dequantising with torch, on whatever device the packed bytes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..cancelling import Cancelled, never
from ..errors import LoadCancelledError, SafetensorsLoadError
from .chunks import chunk_spans
from .codebooks import Codebook
from .kernels import KERNELS
from .on_numpy import refusal
from .quant_types import GgufType

_DEVICE_CHUNK_ELEMENTS = 1 << 24
"""64 MiB of float32, and about as much again to unpack: a GPU wants long kernels, and its cache is of no use here."""
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def dequantise_tensor(
    packed: torch.Tensor,
    kind: GgufType,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    *,
    cancelled: Cancelled | None = None,
    name: str = "",
) -> torch.Tensor:
    """`packed`, (bytes,) uint8, as a tensor of `shape` on the same device; in float32 the numbers of `dequantise`, bit
    for bit. Only NaN may be another: a GPU has one of them, and a CPU may take the other of two when a tensor is a
    single block whose scale and offset both are NaN. Raises as `dequantise` does."""
    cancelled = cancelled or never
    if reason := refusal(kind):
        raise SafetensorsLoadError(name, reason)
    blocks = packed.reshape(-1, kind.block_bytes)
    values = torch.empty(len(blocks), kind.block_elements, dtype=dtype, device=packed.device)
    arrays = _TorchArrays(packed.device)
    chunk_elements = None if packed.is_cpu else _DEVICE_CHUNK_ELEMENTS
    for first, end in chunk_spans(len(blocks), kind, chunk_elements):
        if cancelled():
            raise LoadCancelledError(name, "cancelled while it was being dequantised")
        values[first:end] = _values(arrays, blocks[first:end], kind)
    return values.reshape(tuple(shape))


def _values(arrays: _TorchArrays, blocks: torch.Tensor, kind: GgufType) -> torch.Tensor:
    if kind.name in _PLAIN:
        numbers = _aligned(blocks).view(_PLAIN[kind.name])
        return _widen(numbers) if kind.name == "F16" else numbers
    unpacked = KERNELS[kind.name](arrays, blocks)
    # One operation after the other: a fused multiply-add rounds once where the definition rounds twice.
    values: torch.Tensor = unpacked.quants.float()
    values *= unpacked.scale
    if unpacked.plus is not None:
        values = _keep_first_nan(values, values + unpacked.plus, unpacked.plus)
    if unpacked.minus is not None:
        values = _keep_first_nan(values, values - unpacked.minus, unpacked.minus)
    return values.reshape(len(blocks), -1)


def _keep_first_nan(values: torch.Tensor, moved: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """`moved`, but where `values` and `offset` are both NaN: torch adds with a multiply-add, which passes on the second
    of two NaNs. A GPU has only one."""
    if values.is_cpu and bool(offset.isnan().any()):
        return torch.where(values.isnan(), values, moved)
    return moved


def _widen(halves: torch.Tensor) -> torch.Tensor:
    """float16 as float32. On a CPU numpy does it: torch replaces the NaN of the last few elements by another one."""
    return torch.from_numpy(halves.numpy().astype(np.float32)) if halves.is_cpu else halves.float()


def _aligned(raw: torch.Tensor) -> torch.Tensor:
    """A copy: a tensor may be seen as one of wider numbers only where these could begin."""
    return raw.clone(memory_format=torch.contiguous_format)


class _TorchArrays:
    """`Arrays` of torch. Keeps what it has sent to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tables: dict[Codebook, torch.Tensor] = {}

    def halves(self, raw: torch.Tensor) -> torch.Tensor:
        return _widen(_aligned(raw).view(torch.float16))

    def signed(self, raw: torch.Tensor) -> torch.Tensor:
        return raw.view(torch.int8)

    def join(self, parts: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        return torch.cat(list(parts), axis)

    def lookup(self, codebook: Codebook, low: torch.Tensor, high: torch.Tensor | None = None) -> torch.Tensor:
        index = low.int() if high is None else low.int() | high.int() << 8
        return self._table(codebook)[index]

    def _table(self, codebook: Codebook) -> torch.Tensor:
        table = self._tables.get(codebook)
        if table is None:
            flat = torch.frombuffer(bytearray(codebook.values), dtype=getattr(torch, codebook.kind))
            rows = flat if codebook.width == 1 else flat.reshape(-1, codebook.width)
            table = self._tables[codebook] = rows.to(self._device)
        return table
