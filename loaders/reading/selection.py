"""Some tensors of a file in private memory: only their bytes are read, in as few reads as they have gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..files.header import SafetensorsHeader
from ..memory.spare_memory import SpareMemory
from .direct import BLOCK_BYTES, fill_directly, should_read_directly
from .filling import Pace, Span, fill
from .opened import OpenFiles, open_raw, require_stamp
from .private import allocate, patience_with
from .views import view_tensors

_GAP_BYTES = 4096
"""Reading over a hole this small costs less than another read."""
_ALIGNMENT_BYTES = 64
_CHUNK_BYTES = 8 << 20
_MOST_EXTRA = 0.01
"""Of the selected bytes, that reading whole blocks may add."""


class Selected(NamedTuple):
    """The tensors and the bytes of the one buffer behind them."""

    tensors: dict[str, torch.Tensor]
    nbytes: int


class _Run(NamedTuple):
    """Neighbours in the file: data bytes `start` to `end`, which go to byte `place` of the buffer."""

    start: int
    end: int
    place: int
    keys: list[str]

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def read_selected(
    header: SafetensorsHeader,
    keys: Sequence[str],
    pace: Pace,
    *,
    readers: int = 1,
    copiers: int = 1,
    spare: SpareMemory | None = None,
    opened: OpenFiles | None = None,
) -> Selected:
    """`keys` of a file as views of one private buffer: what is not in the page cache past it by `readers` threads,
    unless it lies in small pieces, else through it by `copiers`. Raises as `read_tensors` does."""
    path = header.path
    with open_raw(path, opened, last=True) as file:
        require_stamp(path, file, header.stamp)
        runs = _runs(header, keys, origin=0, alignment_bytes=_ALIGNMENT_BYTES)
        direct = _worth_blocks(runs) and should_read_directly(header, file, _spans(header, runs))
        if direct:
            runs = _runs(header, keys, origin=header.data_start, alignment_bytes=BLOCK_BYTES)
        size_bytes = _size_bytes(runs, BLOCK_BYTES if direct else 1)
        buffer = allocate(path, size_bytes, spare=spare, direct=direct)
        with memoryview(buffer) as memory:
            blocks = [_blocks(header, run, memory) for run in runs] if direct else []
            patience = patience_with(buffer, size_bytes, spare, from_disk=direct)
            if not (direct and fill_directly(path, file, blocks, pace, threads=readers, patience=patience)):
                exact = [
                    (memory[run.place : run.place + run.size_bytes], header.data_start + run.start) for run in runs
                ]
                fill(path, file, exact, pace, threads=copiers, chunk_bytes=_CHUNK_BYTES, patience=patience)
                del exact
            # The buffer cannot go while a slice of its memoryview is alive.
            del blocks
        require_stamp(path, file, header.stamp)
    moved = {key: header.tensors[key].moved(run.place - run.start) for run in runs for key in run.keys}
    views = view_tensors(path, buffer, moved, 0)
    return Selected({key: views[key] for key in keys}, size_bytes)


def wanted_spans(header: SafetensorsHeader, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Where `keys` lie in the file, neighbours together."""
    return _spans(header, _runs(header, keys, origin=0, alignment_bytes=_ALIGNMENT_BYTES))


def _runs(header: SafetensorsHeader, keys: Sequence[str], *, origin: int, alignment_bytes: int) -> list[_Run]:
    """Each as misaligned in the buffer as at `origin` and its start: by data section, where writers align every tensor
    to its elements, or by file, which direct reads demand."""
    runs: list[_Run] = []
    used_bytes = 0
    for key in sorted(keys, key=lambda key: header.tensors[key].start):
        _, _, start, end = header.tensors[key]
        if runs and start - runs[-1].end <= _GAP_BYTES:
            runs[-1].keys.append(key)
            runs[-1] = runs[-1]._replace(end=max(runs[-1].end, end))
        else:
            place = _rounded(used_bytes, alignment_bytes) + (origin + start) % alignment_bytes
            runs.append(_Run(start, end, place, [key]))
        used_bytes = runs[-1].place + runs[-1].size_bytes
    return runs


def _worth_blocks(runs: Sequence[_Run]) -> bool:
    """True when whole blocks at both ends of each run add next to nothing."""
    return len(runs) * 2 * BLOCK_BYTES <= _MOST_EXTRA * sum(run.size_bytes for run in runs)


def _spans(header: SafetensorsHeader, runs: Sequence[_Run]) -> list[tuple[int, int]]:
    return [(header.data_start + run.start, header.data_start + run.end) for run in runs]


def _blocks(header: SafetensorsHeader, run: _Run, memory: memoryview) -> Span:
    """The memory and the file offset of the whole blocks that hold `run`. More than 4096 bytes apart, no two runs share
    one."""
    start = header.data_start + run.start
    lead_bytes = start % BLOCK_BYTES
    end = min(_rounded(header.data_start + run.end, BLOCK_BYTES), header.file_bytes)
    first = run.place - lead_bytes
    return memory[first : first + end - (start - lead_bytes)], start - lead_bytes


def _size_bytes(runs: Sequence[_Run], unit_bytes: int) -> int:
    return _rounded(runs[-1].place + runs[-1].size_bytes, unit_bytes) if runs else 0


def _rounded(nbytes: int, unit_bytes: int) -> int:
    return -(-nbytes // unit_bytes) * unit_bytes
