"""Mapped views: the file's own pages in the page cache, shared, read when first touched."""

from __future__ import annotations

import mmap
import os
from io import FileIO

from ..files.header import SafetensorsHeader, read_header
from ..system import kernel
from .opened import open_raw, reading, require_stamp
from .tensor_file import TensorFile
from .views import view_tensors


def map_tensors(
    path: str | os.PathLike[str], *, header: SafetensorsHeader | None = None, populate: bool = False
) -> TensorFile:
    """Every tensor of `path` as a copy-on-write view of the mapped file. `populate` reads a cold file in large requests
    instead of one 128 KiB fault after the other, and returns when it is in memory.

    See `TensorFile.storage` for what happens when the file changes afterwards."""
    header = read_header(path) if header is None else header
    with open_raw(header.path) as file:
        buffer = map_file(header, file)
    if populate:
        kernel.populate(buffer)
    return TensorFile(view_tensors(header.path, buffer, header.tensors, header.data_start), header, buffer, "mapped")


def map_file(header: SafetensorsHeader, file: FileIO) -> mmap.mmap:
    """All of the open `file`, copy-on-write; it may be larger than memory and swap together."""
    require_stamp(header.path, file, header.stamp)
    with reading(header.path):
        return kernel.map_privately(file.fileno())
