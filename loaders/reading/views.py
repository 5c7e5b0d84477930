"""Tensors as views on one buffer: no copy, and one call for all that are of a kind."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from ..errors import SafetensorsLoadError
from ..files.dtypes import TORCH_DTYPES
from ..files.tensor_entry import DTYPE_BITS, TensorEntry
from ..system.breather import Breather

PrivateBuffer = mmap.mmap | ctypes.Array[ctypes.c_ubyte]
Buffer = PrivateBuffer | bytearray
_BREATH_TENSORS = 256
AS_STORED = TORCH_DTYPES.keys() - {"F4"}
"""Header dtypes that torch holds in the shape that the header gives."""


def view_tensors(
    path: str, buffer: Buffer, entries: Mapping[str, TensorEntry], data_start: int
) -> dict[str, torch.Tensor]:
    """Views of `entries`, in the order of their starts, whose data section begins at byte `data_start` of `buffer`. The
    tensors keep `buffer` alive; a tensor without elements does not. `path` is for errors only."""
    rows = _Rows(buffer)
    empty: dict[str, torch.Tensor] = {}
    breather = Breather()
    for step, (key, (dtype, shape, start, end)) in enumerate(entries.items()):
        if step % _BREATH_TENSORS == 0:
            breather.breathe()
        shape = torch_shape(path, key, dtype, shape)
        if start == end:
            empty[key] = torch.empty(shape, dtype=TORCH_DTYPES[dtype], device="cpu")
        else:
            rows.add(key, dtype, shape, data_start + start, data_start + end)
    views = dict(rows.views())
    if list(views) == list(entries):
        return views
    views |= empty
    return {key: views[key] for key in entries}


@dataclass(slots=True)
class _Row:
    """Neighbours of one dtype, whole elements apart from each other: their names, None for a hole, and as what shape
    each is seen."""

    base: torch.Tensor
    itemsize: int
    end: int
    """Byte of the buffer where the latest ends."""
    keys: list[str | None] = field(default_factory=list)
    shapes: list[torch.Tensor] = field(default_factory=list)


class _Rows:
    """The rows of a buffer. torch makes all views of a row in one call: a call for each lets go of the interpreter, and
    once another thread is busy, every tenth or so gets it back only 5 ms later."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._rows: dict[tuple[str, int], _Row] = {}
        self._shapes = _Shapes()
        self._latest = ("", _Row(torch.empty(0, device="meta"), 1, 0))

    def add(self, key: str, dtype: str, shape: tuple[int, ...], start: int, end: int) -> None:
        latest, row = self._latest
        if start != row.end or dtype != latest:
            row = self._row(dtype, start)
            self._latest = (dtype, row)
            if start > row.end:
                row.keys.append(None)
                row.shapes.append(self._shapes[((start - row.end) // row.itemsize,)])
        row.keys.append(key)
        row.shapes.append(self._shapes[shape])
        row.end = end

    def views(self) -> Iterator[tuple[str, torch.Tensor]]:
        for row in self._rows.values():
            made = torch._C._nn.unflatten_dense_tensors(row.base, row.shapes)
            yield from ((key, view) for key, view in zip(row.keys, made, strict=True) if key is not None)

    def _row(self, dtype: str, start: int) -> _Row:
        """Files in the wild start tensors at any byte, and torch reaches only whole elements of a base."""
        itemsize = DTYPE_BITS[dtype] // 8 or 1
        phase = start % itemsize
        row = self._rows.get((dtype, phase))
        if row is None:
            count = (len(self._buffer) - phase) // itemsize
            base = torch.frombuffer(self._buffer, dtype=TORCH_DTYPES[dtype], count=count, offset=phase)
            row = self._rows[dtype, phase] = _Row(base, itemsize, phase)
        return row


class _Shapes(dict[tuple[int, ...], torch.Tensor]):
    """Shapes as tensors without memory, which is how torch wants to be told them."""

    def __missing__(self, shape: tuple[int, ...]) -> torch.Tensor:
        template = self[shape] = torch.empty(shape, device="meta")
        return template


def torch_shape(path: str, key: str, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as which torch holds that tensor of `path`; SafetensorsLoadError when it holds none like it."""
    if dtype in AS_STORED:
        return shape
    if dtype not in TORCH_DTYPES:
        raise SafetensorsLoadError(path, f"{key!r} is {dtype}, which this torch lacks; convert the file")
    if not shape or shape[-1] % 2:
        raise SafetensorsLoadError(
            path, f"{key!r} is F4 with an odd last dimension, which torch cannot hold; convert the file"
        )
    return (*shape[:-1], shape[-1] // 2)
