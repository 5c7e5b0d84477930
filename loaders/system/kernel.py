"""Questions and advice to the kernel that Python has no call for. Each answers None or False where it cannot."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from functools import cache
from typing import Any

_CACHESTAT = 451
"""System call number on every Linux architecture; Linux 6.5 and later."""
_MADV_POPULATE_READ = 22
_RECLAIMS_SAFELY = (5, 18)
"""Before, a direct read into memory that the kernel may reclaim could lose what it had read to a reclaim meanwhile."""
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""Python names it from 3.13 on. The number is that of x86, ARM and RISC-V."""
_NOT_RESIDENT = bytes(range(0, 256, 2))
"""mincore answers in the lowest bit of a byte per page; the others are reserved."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


_FEW_BYTES = 1 << 20
"""Their pages are counted in a microsecond or two."""


def cores() -> int:
    """What this process was given may be less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cached_pages(fd: int, start: int = 0, nbytes: int = 0) -> int | None:
    """Pages of `nbytes` of the open file from byte `start` on, 0 for all to its end, that are in the page cache; None
    where the kernel has no cachestat or refuses it."""
    if not sys.platform.startswith("linux"):
        return None
    span, answer = _Range(start, nbytes), _CacheStat()
    # Who lets go of the interpreter beside a busy thread gets it back only 5 ms later.
    library = _libc_with_the_gil() if 0 < nbytes <= _FEW_BYTES else ctypes.CDLL(None)
    failed = library.syscall(_CACHESTAT, fd, ctypes.byref(span), ctypes.byref(answer), 0)
    return None if failed else int(answer.cached)


@cache
def _libc_with_the_gil() -> ctypes.CDLL:
    return ctypes.PyDLL(None)


def map_privately(fd: int, nbytes: int = 0, start: int = 0) -> mmap.mmap:
    """`nbytes` of the open file from byte `start` on, 0 for all to its end, copy-on-write: torch and ctypes want
    writable memory, and a write must never reach the file. OSError or ValueError when it cannot be mapped."""
    # Else every mapping keeps a file open, and 256 may be on some systems.
    untracked: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) and sys.platform != "win32" else {}
    if not sys.platform.startswith("linux"):
        return mmap.mmap(fd, nbytes, access=mmap.ACCESS_COPY, offset=start, **untracked)
    # Else the kernel counts each page as one that will be written to, and refuses a file larger than memory and swap.
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    return mmap.mmap(fd, nbytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start, **untracked)


def mapped_resident_pages(fd: int, nbytes: int, start: int = 0) -> int | None:
    """Pages of `nbytes` of the open file from byte `start` on that are in memory by mincore, or None where there is no
    mincore, it may not tell, or the file cannot be mapped."""
    if os.name != "posix" or nbytes == 0:
        return 0 if nbytes == 0 else None
    if sys.platform.startswith("linux") and not _is_told(fd):
        return None
    lead = start % mmap.ALLOCATIONGRANULARITY
    length = lead + nbytes
    try:
        mapping = map_privately(fd, length, start - lead)
    except (OSError, ValueError):
        # The file was cut meanwhile, or the address space is full.
        return None
    with mapping:
        return _resident_pages(mapping, length, lead // mmap.PAGESIZE)


def is_resident(memory: mmap.mmap, share: float) -> bool:
    """True when that share of private `memory` is there: the rest has never come, or the kernel has taken it back."""
    resident = _resident_pages(memory, len(memory))
    return resident is not None and resident * mmap.PAGESIZE >= share * len(memory)


def _resident_pages(mapping: mmap.mmap, nbytes: int, skipped: int = 0) -> int | None:
    """Pages of the first `nbytes` that mincore tells of, but for those `skipped` at the beginning."""
    flags = (ctypes.c_ubyte * -(-nbytes // mmap.PAGESIZE))()
    first = ctypes.c_ubyte.from_buffer(mapping)
    failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(nbytes), flags)
    del first
    # In C: a model of 24 GB has six million pages, and no other thread runs Python meanwhile.
    return None if failed else len(bytes(flags)[skipped:].translate(None, _NOT_RESIDENT))


def _is_told(fd: int) -> bool:
    """Linux says of a file that every page is in memory, to whoever neither owns it nor may write to it."""
    if os.fstat(fd).st_uid == os.geteuid():
        return True
    effective = os.access in os.supports_effective_ids
    return os.access(f"/proc/self/fd/{fd}", os.W_OK, effective_ids=effective)


def populate(mapping: mmap.mmap, start: int = 0, end: int | None = None) -> bool:
    """Read bytes `start` to `end` of a file mapping into memory with requests as large as the device takes. False where
    the kernel cannot.

    Through ctypes because `mmap.madvise` keeps the GIL for the whole read."""
    if not sys.platform.startswith("linux"):
        return False
    lead = start - start % mmap.PAGESIZE
    length = (len(mapping) if end is None else end) - lead
    first = ctypes.c_ubyte.from_buffer(mapping)
    failed = ctypes.CDLL(None).madvise(
        ctypes.c_void_p(ctypes.addressof(first) + lead), ctypes.c_size_t(length), _MADV_POPULATE_READ
    )
    return not failed


def want_small_pages(address: int, end: int) -> bool:
    """Have what is untouched yet of the memory from `address` to `end` come in small pages. False where the kernel has
    no others."""
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return False
    first = address - address % mmap.PAGESIZE
    advice = ctypes.c_int(mmap.MADV_NOHUGEPAGE)
    return not ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)


def can_reclaim() -> bool:
    """True where private memory that the kernel may take back costs nobody anything: it can be told, a direct read is
    safe from it, and neither a limit of this process nor strict overcommitting counts such memory as used."""
    if not (sys.platform.startswith("linux") and hasattr(mmap, "MADV_FREE")):
        return False
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is None or tuple(map(int, release.groups())) < _RECLAIMS_SAFELY:
        return False
    import resource

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return all(limit == resource.RLIM_INFINITY for limit in limits) and not _counts_promises()


def _counts_promises(setting: str = "/proc/sys/vm/overcommit_memory") -> bool:
    try:
        with open(setting, encoding="ascii") as file:
            return file.read().strip() == "2"
    except OSError:
        return False


def let_reclaim(memory: mmap.mmap) -> bool:
    """Have the kernel take back what is in private `memory` whenever it lacks some: each page until it is written to
    again. False where it will not, as for locked memory.

    Through ctypes because `mmap.madvise` keeps the GIL, and small pages are marked one by one."""
    first = ctypes.c_ubyte.from_buffer(memory)
    advice = ctypes.c_int(mmap.MADV_FREE)
    start = ctypes.c_void_p(ctypes.addressof(first))
    return not ctypes.CDLL(None).madvise(start, ctypes.c_size_t(len(memory)), advice)
