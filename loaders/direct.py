"""Reading past the page cache (O_DIRECT): the disk's own speed for a cold file, the worst choice for a cached one."""

from __future__ import annotations

import mmap
import os
from io import FileIO

from .filling import Pace, fill
from .header import SafetensorsHeader
from .opened import require_stamp
from .private import allocate
from .tensor_file import TensorFile
from .views import view_tensors

_BLOCK_BYTES = 4096
"""Offsets, lengths and addresses of direct reads must be multiples of the device's block; 4096 covers every disk."""
_CHUNK_BYTES = 8 << 20
"""Small enough that four readers share even one LoRA evenly."""
_ALIGNMENT_BYTES = 8


def can_read_directly(header: SafetensorsHeader) -> bool:
    """False where direct reads do not exist, or where keeping the file's layout, as they must, misaligns every
    tensor."""
    return hasattr(os, "O_DIRECT") and hasattr(os, "preadv") and header.data_start % _ALIGNMENT_BYTES == 0


def read_tensors_directly(header: SafetensorsHeader, pace: Pace, *, threads: int) -> TensorFile:
    """`read_tensors` past the page cache. OSError where the file system refuses direct reads (tmpfs, some network
    ones)."""
    path = header.path
    origin = header.data_start - header.data_start % _BLOCK_BYTES
    wanted_bytes = header.file_bytes - origin
    whole_bytes = wanted_bytes - wanted_bytes % _BLOCK_BYTES
    buffer = allocate(path, wanted_bytes)
    with FileIO(path, "rb", opener=_open_direct) as file, memoryview(buffer) as memory:
        require_stamp(path, file, header.stamp)
        fill(path, file, [(memory[:whole_bytes], origin)], pace, threads=threads, chunk_bytes=_CHUNK_BYTES)
        _read_tail(file, memory[whole_bytes:wanted_bytes], origin + whole_bytes)
        require_stamp(path, file, header.stamp)
    return TensorFile(view_tensors(path, buffer, header.tensors, header.data_start - origin), header, buffer, "private")


def _open_direct(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


def _read_tail(file: FileIO, target: memoryview, offset: int) -> None:
    """The last, partial block: a direct read asks for all of it and gets what there is."""
    with mmap.mmap(-1, _BLOCK_BYTES) as block:
        os.preadv(file.fileno(), [block], offset)
        target[:] = block[: len(target)]
