"""Three questions to the kernel that Python has no call for. Each answers None or False where the system cannot say."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

_CACHESTAT = 451
"""System call number on every Linux architecture; Linux 6.5 and later."""
_MADV_POPULATE_READ = 22


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def cached_pages(fd: int) -> int | None:
    """Pages of the open file that are in the page cache, or None where the kernel has no cachestat or refuses it."""
    if not sys.platform.startswith("linux"):
        return None
    whole, answer = _Range(0, 0), _CacheStat()
    failed = ctypes.CDLL(None).syscall(_CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(answer), 0)
    return None if failed else int(answer.cached)


def mapped_resident_pages(fd: int, nbytes: int) -> int | None:
    """Pages of the first `nbytes` of the open file that are in memory by mincore, or None where there is no mincore."""
    if os.name != "posix" or nbytes == 0:
        return 0 if nbytes == 0 else None
    # Copy-on-write, because ctypes takes the address of writable buffers only.
    with mmap.mmap(fd, nbytes, access=mmap.ACCESS_COPY) as mapping:
        pages = -(-nbytes // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * pages)()
        first = ctypes.c_ubyte.from_buffer(mapping)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(nbytes), flags)
        del first
    return None if failed else sum(flag & 1 for flag in flags)


def populate(mapping: mmap.mmap) -> bool:
    """Read all of a file mapping into memory with requests as large as the device takes. False where the kernel cannot.

    Through ctypes because `mmap.madvise` keeps the GIL for the whole read."""
    if not sys.platform.startswith("linux"):
        return False
    first = ctypes.c_ubyte.from_buffer(mapping)
    failed = ctypes.CDLL(None).madvise(
        ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(mapping)), _MADV_POPULATE_READ
    )
    return not failed
