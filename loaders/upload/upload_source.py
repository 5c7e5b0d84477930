"""What an upload sends: the seam, one block of host memory, and bytes that are still in their file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import FileIO
from typing import Protocol

import numpy as np
import torch

from ..reading.filling import Pace, read_at
from ..reading.flat_views import FlatViews, TensorSpec
from ..reading.views import Buffer


class UploadSource(Protocol):
    """`nbytes` for one device buffer."""

    @property
    def nbytes(self) -> int: ...

    @property
    def is_shared(self) -> bool:
        """True when several threads may `write` at a time."""
        ...

    def write(self, start: int, slot: torch.Tensor) -> None:
        """Fill `slot`, (n,) uint8 of host memory, with the bytes from `start` on."""

    def views(self, buffer: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The tensors in `buffer`, (nbytes,) uint8, as it lies on the device."""
        ...


class MemorySource:
    """Tensors of one host buffer, which is sent as it stands: one large copy per slot, however many tensors."""

    is_shared = True

    def __init__(self, buffer: Buffer, specs: Mapping[str, TensorSpec]) -> None:
        """`specs` tells where in `buffer` the tensors are: see `specs_of_tensors`."""
        self._memory = np.frombuffer(memoryview(buffer), np.uint8)
        self._specs = specs
        self.nbytes = max((spec.start + spec.nbytes for spec in specs.values()), default=0)

    def write(self, start: int, slot: torch.Tensor) -> None:
        # One call that releases the GIL; torch would wake a team of threads for every thread that fills slots.
        np.copyto(slot.numpy(), self._memory[start : start + len(slot)])

    def views(self, buffer: torch.Tensor) -> FlatViews:
        return FlatViews(buffer, self._specs)


class FileSource:
    """`nbytes` of an open file from byte `offset` on, read straight into the slots: they never lie in host memory of
    their own."""

    # Without preadv a read moves the one position of the file, which threads cannot share.
    is_shared = hasattr(os, "preadv")

    def __init__(
        self, path: str, file: FileIO, offset: int, nbytes: int, specs: Mapping[str, TensorSpec], pace: Pace
    ) -> None:
        self.nbytes = nbytes
        self._path = path
        self._file = file
        self._offset = offset
        self._specs = specs
        self._pace = pace

    def write(self, start: int, slot: torch.Tensor) -> None:
        self._pace.allow(self._path, len(slot))
        offset = self._offset + start
        read_at(self._path, self._file, slot.numpy().data.cast("B"), offset)
        self._pace.report(self._path, len(slot), offset + len(slot))

    def views(self, buffer: torch.Tensor) -> FlatViews:
        return FlatViews(buffer, self._specs)
