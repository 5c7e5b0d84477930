"""Reading past the page cache (O_DIRECT): the disk's own speed for a cold file, the worst choice for a cached one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO

from ..errors import SafetensorsLoadError
from ..files.header import SafetensorsHeader
from ..memory.huge_pages import Patience
from ..system.page_cache import cached_share
from .filling import Pace, Span, fill, read_at
from .opened import reading

BLOCK_BYTES = 4096
"""Offsets, lengths and addresses of direct reads must be multiples of the device's block; 4096 covers every disk."""
READERS = 12
"""A disk wants a queue, whether or not there are as many cores. Twelve hide that memory is faulted in meanwhile; eight
took a tenth longer, although both keep the disk as busy as it gets."""
CACHED_SHARE = 0.9
"""From here on the page cache is faster than the disk would be for the rest."""
_CHUNK_BYTES = 2 << 20
"""30% of a 4 GB file came in 0.8 of the time that 1 MiB took (into fresh memory in 0.96)."""
_ALIGNMENT_BYTES = 8


def should_read_directly(header: SafetensorsHeader, file: FileIO, spans: Sequence[tuple[int, int]]) -> bool:
    """True when bytes `start` to `end` of `spans` are for the greater part not in the page cache, and direct reads can
    have them without misaligning every tensor, since they keep the file's layout."""
    if not (hasattr(os, "O_DIRECT") and hasattr(os, "preadv")) or header.data_start % _ALIGNMENT_BYTES:
        return False
    share = cached_share(file, spans)
    return share is not None and share < CACHED_SHARE


def fill_directly(
    path: str,
    file: FileIO,
    spans: Sequence[Span],
    pace: Pace,
    *,
    threads: int = READERS,
    patience: Patience | None = None,
) -> bool:
    """`fill` past the page cache; False, with nothing read, where the file system refuses (tmpfs, some network ones).

    Memory and offset of each span are whole blocks. So is its length, unless it ends with the file."""
    try:
        with _direct(path, file):
            whole = [(target[: len(target) - len(target) % BLOCK_BYTES], offset) for target, offset in spans]
            fill(path, file, whole, pace, threads=threads, chunk_bytes=_CHUNK_BYTES, patience=patience)
    except SafetensorsLoadError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        return False
    for target, offset in spans:
        done_bytes = len(target) - len(target) % BLOCK_BYTES
        read_at(path, file, target[done_bytes:], offset + done_bytes)
    return True


@contextmanager
def _direct(path: str, file: FileIO) -> Iterator[None]:
    """The open file itself, so that it is the one whose stamp was checked."""
    import fcntl

    with reading(path):
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
    try:
        yield
    finally:
        fcntl.fcntl(file, fcntl.F_SETFL, flags)
