"""Private tensors: one anonymous buffer, filled by a few large reads that release the GIL."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import FileIO

from .errors import LoadCancelledError, SafetensorsLoadError
from .header import SafetensorsHeader, read_header
from .opened import open_raw, read_exactly, require_stamp
from .rate_limit import RateLimit
from .tensor_file import TensorFile
from .views import view_tensors

_CHUNK_BYTES = 32 << 20
"""Each return from a read waits up to 5 ms for the interpreter when another thread is busy, so a 224 MB adapter gets 7
of them; a cancel waits for one chunk."""
_HUGE_PAGE_BYTES = 2 << 20


def read_tensors(
    path: str | os.PathLike[str],
    *,
    header: SafetensorsHeader | None = None,
    cancelled: Callable[[], bool] | None = None,
    limiter: RateLimit | None = None,
) -> TensorFile:
    """Every tensor of `path` as a view of private memory, which the file's later fate cannot touch.

    Raises LoadCancelledError between two chunks once `cancelled()` is true, and SafetensorsLoadError when the file
    changes while it is being read or no longer is what `header` says."""
    name = os.fspath(path)
    header = read_header(name) if header is None else header
    with open_raw(name) as file:
        require_stamp(name, file, header.stamp)
        buffer = allocate(name, header.data_bytes)
        file.seek(header.data_start)
        with memoryview(buffer) as memory:
            _fill(name, file, memory[: header.data_bytes], cancelled, limiter)
        require_stamp(name, file, header.stamp)
    return TensorFile(view_tensors(name, buffer, header.tensors, 0), header, buffer, "private")


def allocate(path: str, nbytes: int) -> mmap.mmap:
    """At least `nbytes` of zeroed private memory, on huge pages where the system has them: faulting it in costs as much
    as the copy, and half of that with them. `path` is for the error only."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, max(nbytes, 1))
        buffer = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise SafetensorsLoadError(path, f"needs {nbytes} bytes of memory, which are not there; free some") from error
    if nbytes >= _HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


def _fill(
    path: str, file: FileIO, target: memoryview, cancelled: Callable[[], bool] | None, limiter: RateLimit | None
) -> None:
    for start in range(0, len(target), _CHUNK_BYTES):
        chunk = target[start : start + _CHUNK_BYTES]
        if limiter is not None:
            limiter.spend(len(chunk), cancelled)
        if cancelled is not None and cancelled():
            raise LoadCancelledError(path, f"cancelled after {start} of {len(target)} bytes")
        read_exactly(path, file, chunk)
