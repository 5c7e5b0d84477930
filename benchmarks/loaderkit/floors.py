"""Floors: what the machine can do with the same bytes, without any Python per tensor.

memcpy: from and to memory that is there already. Direct reads: past the page cache into a buffer that is there already,
the next piece as soon as a thread is free; several sizes of queue, of which the fastest counts."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_MOST_BYTES = 1 << 30
_DIRECT_BYTES = 1 << 28
"""What a disk writes to does not become slower to write to, unlike what a processor copies, by being used again."""
_LIBC = ctypes.CDLL(None)
_BUFFERS: dict[str, mmap.mmap] = {}
_REST_S = 0.3
"""From when the memory of a floor is touched until its clock starts: what was touched just now is in the processor's
cache, where nothing is that a loader finds when its turn comes."""


def memcpy_2_threads(workload: dict[str, Any]) -> list[Any]:
    size_bytes = min(workload["wanted_bytes"], _MOST_BYTES)
    source, target = _buffer("source", size_bytes), _buffer("target", size_bytes)
    with ThreadPoolExecutor(2) as pool:
        left_bytes = workload["wanted_bytes"]
        while left_bytes > 0:
            whole_bytes = min(left_bytes, size_bytes)
            half_bytes = -(-whole_bytes // 2)
            pieces = [(0, half_bytes), (half_bytes, whole_bytes - half_bytes)]
            list(pool.map(lambda piece: _copy(target, source, *piece), pieces))
            left_bytes -= whole_bytes
    return []


def direct_4_threads(workload: dict[str, Any]) -> list[Any]:
    return _read_directly(workload, 4, 2 << 20)


def direct_8_threads(workload: dict[str, Any]) -> list[Any]:
    return _read_directly(workload, 8, 2 << 20)


def direct_12_threads(workload: dict[str, Any]) -> list[Any]:
    return _read_directly(workload, 12, 1 << 20)


def _read_directly(workload: dict[str, Any], threads: int, chunk_bytes: int) -> list[Any]:
    """The share of each file that is wanted of all, from its beginning."""
    buffer = memoryview(_buffer("direct", min(workload["wanted_bytes"], _DIRECT_BYTES)))
    room_bytes = len(buffer) - len(buffer) % chunk_bytes
    files = [(os.open(path, os.O_RDONLY | os.O_DIRECT), _share(workload, path)) for path in workload["paths"]]

    def read(piece: tuple[int, int]) -> None:
        file, offset = piece
        place = offset % room_bytes
        os.preadv(file, [buffer[place : place + chunk_bytes]], offset)

    pieces = [(file, offset) for file, size_bytes in files for offset in range(0, size_bytes, chunk_bytes)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, pieces))
    for file, _ in files:
        os.close(file)
    return []


def _touch_copy(workload: dict[str, Any]) -> None:
    """A virtual machine takes memory back that was idle for long: it must be there again when the clock starts."""
    for name in ("source", "target"):
        _fill(_buffer(name, min(workload["wanted_bytes"], _MOST_BYTES)))
    time.sleep(_REST_S)


def _touch_direct(workload: dict[str, Any]) -> None:
    _fill(_buffer("direct", min(workload["wanted_bytes"], _DIRECT_BYTES)))
    time.sleep(_REST_S)


def _share(workload: dict[str, Any], path: str) -> int:
    whole_bytes = sum(map(os.path.getsize, workload["paths"]))
    return -(-os.path.getsize(path) * workload["wanted_bytes"] // whole_bytes)


def _copy(target: mmap.mmap, source: mmap.mmap, start: int, nbytes: int) -> None:
    _LIBC.memcpy(ctypes.c_void_p(_address(target) + start), ctypes.c_void_p(_address(source) + start),
                 ctypes.c_size_t(nbytes))  # fmt: skip


def _fill(buffer: mmap.mmap) -> None:
    _LIBC.memset(ctypes.c_void_p(_address(buffer)), 1, ctypes.c_size_t(len(buffer)))


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(buffer))


def _buffer(name: str, nbytes: int) -> mmap.mmap:
    """Huge pages, written once, kept."""
    if name not in _BUFFERS or len(_BUFFERS[name]) != nbytes:
        buffer = _BUFFERS[name] = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        buffer.madvise(mmap.MADV_HUGEPAGE)
        _fill(buffer)
    return _BUFFERS[name]


memcpy_2_threads.before = _touch_copy  # type: ignore[attr-defined]  # called before the clock starts
for _floor in (direct_4_threads, direct_8_threads, direct_12_threads):
    _floor.before = _touch_direct  # type: ignore[attr-defined]  # called before the clock starts
