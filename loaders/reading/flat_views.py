"""FlatViews: the tensors of a buffer that was copied byte for byte, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from ..files.dtypes import TORCH_DTYPES
from ..files.header import SafetensorsHeader
from .views import Buffer

_KERNEL_BYTES = 16
"""A copy of its own starts at a multiple of this, and more does not matter to any kernel."""


class TensorSpec(NamedTuple):
    """One contiguous tensor of a buffer."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Byte in the buffer."""
    nbytes: int


class FlatViews(Mapping[str, torch.Tensor]):
    """Tensors in `buffer`, (bytes,) uint8, where `specs` say, aligned as they are in their file: to their elements as a
    rule, not to 16 bytes. One at an address that its dtype does not allow is a copy.

    Two thousand views take longer to make than their bytes to cross the bus, so each is made at its first use. A copy
    is made at every use: only the stream that made it knows when it is there."""

    def __init__(self, buffer: torch.Tensor, specs: Mapping[str, TensorSpec]) -> None:
        self._buffer = buffer
        self.specs = specs
        self._made: dict[str, torch.Tensor] = {}
        self._bases: dict[torch.dtype, torch.Tensor] = {}

    def __getitem__(self, key: str) -> torch.Tensor:
        found = self._made.get(key)
        if found is None:
            dtype, shape, start, nbytes = self.specs[key]
            if not nbytes:
                return torch.empty(shape, dtype=dtype, device=self._buffer.device)
            found = self.at(start, dtype, shape, contiguous_strides(shape))
            if start % dtype.itemsize == 0:
                self._made[key] = found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def at(self, start: int, dtype: torch.dtype, shape: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """The tensor with elements that begins at byte `start`."""
        first, rest = divmod(start, dtype.itemsize)
        if rest:
            end = start + _extent(shape, strides) * dtype.itemsize
            moved = self._buffer[start:end].clone().view(dtype)
            return torch.as_strided(moved, shape, strides, 0)
        base = self._bases.get(dtype)
        if base is None:
            whole = len(self._buffer) // dtype.itemsize * dtype.itemsize
            base = self._bases[dtype] = self._buffer[:whole].view(dtype)
        return torch.as_strided(base, shape, strides, first)

    def twin(self, tensor: torch.Tensor, origin: int) -> torch.Tensor | None:
        """The part of this buffer that corresponds to `tensor`, any view of the host's buffer, which begins at address
        `origin`; None when it is no view of it."""
        start = tensor.data_ptr() - origin
        shape, strides = tuple(tensor.shape), tensor.stride()
        end = start + _extent(shape, strides) * tensor.dtype.itemsize
        if not tensor.is_cpu or not tensor.numel() or start < 0 or end > len(self._buffer):
            return None
        twin = self.at(start, tensor.dtype, shape, strides)
        # What needs no cast goes to the matrix product as it is, and a kernel for odd addresses rounds differently.
        return twin if tensor.dtype.itemsize < 4 or twin.data_ptr() % _KERNEL_BYTES == 0 else twin.clone()


def specs_of_header(header: SafetensorsHeader) -> dict[str, TensorSpec] | None:
    """Where the tensors stand in the data section; None when one is of a type that torch holds otherwise, or lacks."""
    specs: dict[str, TensorSpec] = {}
    for key, (dtype, shape, start, end) in header.tensors.items():
        if dtype == "F4" or dtype not in TORCH_DTYPES:
            return None
        specs[key] = TensorSpec(TORCH_DTYPES[dtype], tuple(shape), start, end - start)
    return specs


def specs_of_tensors(tensors: Mapping[str, torch.Tensor], buffer: Buffer) -> dict[str, TensorSpec] | None:
    """Where `tensors` stand in `buffer`; None when one is not contiguous, or lies elsewhere."""
    origin, size_bytes = address_of(buffer), len(buffer)
    specs: dict[str, TensorSpec] = {}
    for key, tensor in tensors.items():
        nbytes = tensor.nbytes
        start = tensor.data_ptr() - origin if nbytes else 0
        if not tensor.is_cpu or not tensor.is_contiguous() or not 0 <= start <= size_bytes - nbytes:
            return None
        specs[key] = TensorSpec(tensor.dtype, tuple(tensor.shape), start, nbytes)
    return specs


def address_of(buffer: Buffer) -> int:
    """Of its first byte."""
    return torch.frombuffer(buffer, dtype=torch.uint8).data_ptr() if len(buffer) else 0


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return tuple(strides)
