"""The page cache: how much of a file is in it, bring it in, put it out. Needs no torch."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator
from io import FileIO

from ..cancelling import Cancelled
from ..errors import LoadCancelledError
from ..reading.opened import OpenFiles, open_raw, reading, stamp_of
from . import kernel
from .rate_limit import RateLimit

_SAMPLES = 64
_SAMPLE_BYTES = 1 << 17
_GOLDEN = (math.sqrt(5) - 1) / 2


def resident_bytes(path: str | os.PathLike[str], *, opened: OpenFiles | None = None) -> int | None:
    """Bytes of `path` in the page cache, to the page; None where the system cannot tell."""
    with open_raw(path, opened) as file:
        size_bytes = stamp_of(file).size_bytes
        pages = _cached_pages(file, 0, size_bytes)
    return None if pages is None else min(pages * mmap.PAGESIZE, size_bytes)


def about_resident_bytes(path: str | os.PathLike[str], *, opened: OpenFiles | None = None) -> int | None:
    """`resident_bytes` as `cached_share` tells it."""
    with open_raw(path, opened) as file:
        size_bytes = stamp_of(file).size_bytes
        share = cached_share(file, [(0, size_bytes)])
    return None if share is None else round(share * size_bytes)


def cached_share(file: FileIO, spans: Iterable[tuple[int, int]]) -> float | None:
    """Share of the pages from byte `start` to `end` of each of `spans` that are in the page cache, of a span above
    8 MiB to a percent or so; None where the system cannot tell."""
    wanted_pages = cached_pages = 0
    for span in spans:
        for start, end in _samples(*span):
            pages = _cached_pages(file, start, end - start)
            if pages is None:
                return None
            cached_pages += pages
            wanted_pages += -(-end // mmap.PAGESIZE) - start // mmap.PAGESIZE
    return cached_pages / wanted_pages if wanted_pages else 1.0


def _samples(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of whole pages from all over a long span: to count the pages of a checkpoint takes 20 ms. Each lies
    elsewhere in its part, or a pattern in the file could hide between them."""
    part_bytes = (end - start) // _SAMPLES
    if part_bytes <= _SAMPLE_BYTES:
        if end > start:
            yield start, end
        return
    for index in range(_SAMPLES):
        inside = int(index * _GOLDEN % 1 * (part_bytes - _SAMPLE_BYTES))
        first = start + index * part_bytes + inside
        first -= first % mmap.PAGESIZE
        yield first, first + _SAMPLE_BYTES


def _cached_pages(file: FileIO, start: int, nbytes: int) -> int | None:
    counted = kernel.cached_pages(file.fileno(), start, nbytes)
    if counted or (counted == 0 and _has_device(file)):
        return counted
    # Of a file on an overlay, as a container's own are, cachestat counts a mapping that nobody reads through: none.
    # Elsewhere that is the answer for a cold file, and mincore would look up each of its pages.
    mapped = kernel.mapped_resident_pages(file.fileno(), nbytes, start)
    return counted if mapped is None else mapped


def _has_device(file: FileIO) -> bool:
    """Whether the file system lies on a block device of its own, which overlays and network shares do not."""
    with reading(str(file.name)):
        return os.major(os.fstat(file.fileno()).st_dev) != 0


def warm_file(
    path: str | os.PathLike[str],
    *,
    cancelled: Cancelled,
    chunk_bytes: int = 8 << 20,
    limiter: RateLimit | None = None,
) -> int:
    """Read `path` from end to end into one scratch buffer, so that its pages are in the cache; the bytes read.

    Raises LoadCancelledError between two chunks once `cancelled()` is true."""
    done_bytes = 0
    with open_raw(path) as file:
        size_bytes = stamp_of(file).size_bytes
        scratch = memoryview(bytearray(min(chunk_bytes, size_bytes)))
        while done_bytes < size_bytes:
            chunk = scratch[: size_bytes - done_bytes]
            if limiter is not None:
                limiter.spend(len(chunk), cancelled)
            if cancelled():
                raise LoadCancelledError(os.fspath(path), f"cancelled after {done_bytes} of {size_bytes} bytes")
            with reading(os.fspath(path)):
                count = file.readinto(chunk)
            if not count:
                break
            done_bytes += count
    return done_bytes


def drop_file(path: str | os.PathLike[str]) -> None:
    """Ask the kernel to forget the pages of `path`, for tests and benchmarks; pages that somebody maps may stay.
    OSError where the system has no call for it."""
    if not hasattr(os, "posix_fadvise"):
        raise OSError("this system drops no file from its page cache; that needs Linux")
    with open_raw(path) as file, reading(os.fspath(path)):
        # Dirty pages survive DONTNEED.
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
