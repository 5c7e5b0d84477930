"""UploadLayout: where the tensors of one file stand in one device buffer, and which bytes of the host go there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from ..reading.flat_views import contiguous_strides
from ..reading.views import Buffer

ALIGN_BYTES = 16
"""What kernels with vector loads want. Files in the wild align to 2 bytes, half of the time."""


class Run(NamedTuple):
    """Bytes that stand side by side on both sides."""

    memory: torch.Tensor
    """(bytes,) uint8 on the host."""
    source: int
    target: int
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class UploadLayout:
    """`tensors` in their order, each at a multiple of ALIGN_BYTES, without gaps where none is needed."""

    tensors: Mapping[str, torch.Tensor]
    starts: Mapping[str, int]
    """Of the tensors that have elements."""
    runs: list[Run]
    nbytes: int
    """Of the device buffer."""

    @property
    def is_shared(self) -> bool:
        # torch spreads each gathering over its own threads.
        return False

    def write(self, start: int, slot: torch.Tensor) -> None:
        """Fill `slot`, (n,) uint8, with the bytes from `start` on. Between the tensors stays what was there."""
        runs = self._runs_within(start, start + len(slot))
        if not runs:
            return
        # Three calls however many runs: each return from torch may wait 5 ms for a busy interpreter.
        targets = _cut(slot, [(run.target - start, run.nbytes) for run in runs])
        sources = [part for group in _by_memory(runs) for part in group]
        torch._foreach_copy_(targets, sources)

    def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors in `buffer`, (nbytes,) uint8, without a copy."""
        bases: dict[torch.dtype, torch.Tensor] = {}
        views: dict[str, torch.Tensor] = {}
        for key, tensor in self.tensors.items():
            start = self.starts.get(key)
            if start is None:
                views[key] = torch.empty(tensor.shape, dtype=tensor.dtype, device=buffer.device)
                continue
            base = bases.get(tensor.dtype)
            if base is None:
                base = bases[tensor.dtype] = buffer.view(tensor.dtype)
            views[key] = torch.as_strided(
                base, tensor.shape, contiguous_strides(tensor.shape), start // tensor.dtype.itemsize
            )
        return views

    def _runs_within(self, start: int, end: int) -> list[Run]:
        """The parts of the runs that go to bytes `start` to `end`."""
        first = max(bisect_right(self.runs, start, key=_target) - 1, 0)
        within: list[Run] = []
        for run in islice(self.runs, first, None):
            if run.target >= end:
                break
            skipped_bytes = max(start - run.target, 0)
            nbytes = min(run.target + run.nbytes, end) - run.target - skipped_bytes
            if nbytes > 0:
                within.append(Run(run.memory, run.source + skipped_bytes, run.target + skipped_bytes, nbytes))
        return within


def lay_out(tensors: Mapping[str, torch.Tensor], buffer: Buffer | None) -> UploadLayout:
    """Tensors on the CPU. Those that are views of `buffer` are copied together; others, one by one, work too."""
    memory = None if buffer is None else torch.frombuffer(buffer, dtype=torch.uint8)
    origin = 0 if memory is None else memory.data_ptr()
    runs: list[Run] = []
    starts: dict[str, int] = {}
    end = 0
    for key, tensor in tensors.items():
        if not tensor.is_cpu:
            raise ValueError(f"{key!r} is on {tensor.device}; only what is on the CPU can be uploaded")
        if not tensor.numel():
            continue
        nbytes = tensor.numel() * tensor.dtype.itemsize
        starts[key] = start = -(-end // ALIGN_BYTES) * ALIGN_BYTES
        end = start + nbytes
        source = tensor.data_ptr() - origin
        if memory is not None and tensor.is_contiguous() and 0 <= source <= len(memory) - nbytes:
            run = Run(memory, source, start, nbytes)
        else:
            run = Run(tensor.detach().contiguous().reshape(-1).view(torch.uint8), 0, start, nbytes)
        _append(runs, run)
    return UploadLayout(tensors, starts, runs, -(-end // ALIGN_BYTES) * ALIGN_BYTES)


def _append(runs: list[Run], run: Run) -> None:
    last = runs[-1] if runs else None
    if (
        last is not None
        and last.memory is run.memory
        and (last.source + last.nbytes, last.target + last.nbytes) == (run.source, run.target)
    ):
        runs[-1] = last._replace(nbytes=last.nbytes + run.nbytes)
    else:
        runs.append(run)


def _target(run: Run) -> int:
    return run.target


def _by_memory(runs: list[Run]) -> Iterator[list[torch.Tensor]]:
    """The sources of `runs`, cut in one call as long as they ascend in one memory. Tied tensors do not."""
    group: list[tuple[int, int]] = []
    memory, end = runs[0].memory, 0
    for run in runs:
        if run.memory is not memory or run.source < end:
            yield _cut(memory, group)
            memory, group = run.memory, []
        group.append((run.source, run.nbytes))
        end = run.source + run.nbytes
    yield _cut(memory, group)


def _cut(memory: torch.Tensor, spans: list[tuple[int, int]]) -> list[torch.Tensor]:
    """The ascending (start, nbytes) of `memory`."""
    sizes: list[int] = []
    at = 0
    for start, nbytes in spans:
        sizes += (start - at, nbytes)
        at = start + nbytes
    return list(memory.split([*sizes, len(memory) - at])[1::2])
