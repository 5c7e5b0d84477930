"""Some tensors of a file in private memory: only their bytes are read, in as few reads as they have gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .filling import Pace, fill
from .header import SafetensorsHeader, TensorEntry
from .opened import open_raw, require_stamp
from .private import allocate
from .views import view_tensors

_GAP_BYTES = 4096
"""Reading over a hole this small costs less than another read."""
_ALIGNMENT_BYTES = 64
_CHUNK_BYTES = 8 << 20


class Selected(NamedTuple):
    """The tensors and the bytes of the one buffer behind them."""

    tensors: dict[str, torch.Tensor]
    nbytes: int


class _Run(NamedTuple):
    """Neighbours in the file: data bytes `start` to `end`, which go to byte `place` of the buffer."""

    start: int
    end: int
    place: int
    keys: tuple[str, ...]


def read_selected(header: SafetensorsHeader, keys: Sequence[str], pace: Pace, *, threads: int = 1) -> Selected:
    """`keys` of a file as views of one private buffer. Raises as `read_tensors` does."""
    runs = _runs(header, keys)
    size_bytes = runs[-1].place + runs[-1].end - runs[-1].start if runs else 0
    buffer = allocate(header.path, size_bytes)
    with open_raw(header.path) as file, memoryview(buffer) as memory:
        require_stamp(header.path, file, header.stamp)
        spans = [(memory[run.place : run.place + run.end - run.start], header.data_start + run.start) for run in runs]
        fill(header.path, file, spans, pace, threads=threads, chunk_bytes=_CHUNK_BYTES)
        require_stamp(header.path, file, header.stamp)
        # The buffer cannot go while a slice of its memoryview is alive.
        del spans
    moved = {key: _moved(header.tensors[key], run.place - run.start) for run in runs for key in run.keys}
    views = view_tensors(header.path, buffer, moved, 0)
    return Selected({key: views[key] for key in keys}, size_bytes)


def _runs(header: SafetensorsHeader, keys: Sequence[str]) -> list[_Run]:
    runs: list[_Run] = []
    used_bytes = 0
    for key in sorted(keys, key=lambda key: header.tensors[key].start):
        _, _, start, end = header.tensors[key]
        if runs and start - runs[-1].end <= _GAP_BYTES:
            last = runs.pop()
            runs.append(last._replace(end=max(last.end, end), keys=(*last.keys, key)))
        else:
            # The same misalignment as in the file, where writers align every tensor to its elements.
            place = -(-used_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES + start % _ALIGNMENT_BYTES
            runs.append(_Run(start, end, place, (key,)))
        used_bytes = runs[-1].place + runs[-1].end - runs[-1].start
    return runs


def _moved(entry: TensorEntry, by_bytes: int) -> TensorEntry:
    return entry._replace(start=entry.start + by_bytes, end=entry.end + by_bytes)
