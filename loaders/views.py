"""Tensors as views on one buffer: no copy, and one Python call per tensor."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping

import torch

from .breather import Breather
from .dtypes import TORCH_DTYPES
from .errors import SafetensorsLoadError
from .header import DTYPE_BITS, TensorEntry

PrivateBuffer = mmap.mmap | ctypes.Array[ctypes.c_ubyte]
Buffer = PrivateBuffer | bytearray
_BREATH_TENSORS = 256


def view_tensors(
    path: str, buffer: Buffer, entries: Mapping[str, TensorEntry], data_start: int
) -> dict[str, torch.Tensor]:
    """Views of `entries`, whose data section begins at byte `data_start` of `buffer`. The tensors keep `buffer` alive;
    a tensor without elements does not. `path` is for errors only."""
    bases: dict[tuple[str, int], torch.Tensor] = {}
    strides: dict[tuple[int, ...], tuple[int, ...]] = {}
    views: dict[str, torch.Tensor] = {}
    breather = Breather()
    for step, (key, (dtype, shape, start, end)) in enumerate(entries.items()):
        if step % _BREATH_TENSORS == 0:
            breather.breathe()
        if dtype == "F4":
            shape = _packed_shape(path, key, shape)
        if start == end:
            views[key] = torch.empty(shape, dtype=_torch_dtype(path, key, dtype))
            continue
        first, phase = divmod(data_start + start, DTYPE_BITS[dtype] // 8 or 1)
        base = bases.get((dtype, phase))
        if base is None:
            base = bases[dtype, phase] = _base(buffer, _torch_dtype(path, key, dtype), phase)
        stride = strides.get(shape)
        if stride is None:
            stride = strides[shape] = _contiguous_stride(shape)
        views[key] = torch.as_strided(base, shape, stride, first)
    return views


def _base(buffer: Buffer, dtype: torch.dtype, phase: int) -> torch.Tensor:
    """The whole buffer as one vector of `dtype` from byte `phase` on: as_strided reaches only whole elements, and files
    in the wild start tensors at any byte."""
    return torch.frombuffer(buffer, dtype=dtype, count=(len(buffer) - phase) // dtype.itemsize, offset=phase)


def _torch_dtype(path: str, key: str, dtype: str) -> torch.dtype:
    try:
        return TORCH_DTYPES[dtype]
    except KeyError:
        raise SafetensorsLoadError(path, f"{key!r} is {dtype}, which this torch lacks; convert the file") from None


def _packed_shape(path: str, key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not shape or shape[-1] % 2:
        raise SafetensorsLoadError(
            path, f"{key!r} is F4 with an odd last dimension, which torch cannot hold; convert the file"
        )
    return (*shape[:-1], shape[-1] // 2)


def _contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        stride[axis - 1] = stride[axis] * shape[axis]
    return tuple(stride)
