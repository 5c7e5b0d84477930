"""Mapped views: the file's own pages in the page cache, shared, read when first touched."""

from __future__ import annotations

import mmap
import os

from . import kernel
from .header import SafetensorsHeader, read_header
from .opened import open_raw, require_stamp
from .tensor_file import TensorFile
from .views import view_tensors


def map_tensors(
    path: str | os.PathLike[str], *, header: SafetensorsHeader | None = None, populate: bool = False
) -> TensorFile:
    """Every tensor of `path` as a copy-on-write view of the mapped file. `populate` reads a cold file in large requests
    instead of one 128 KiB fault after the other, and returns when it is in memory.

    See `TensorFile.storage` for what happens when the file changes afterwards."""
    name = os.fspath(path)
    header = read_header(name) if header is None else header
    with open_raw(name) as file:
        require_stamp(name, file, header.stamp)
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if populate:
        kernel.populate(buffer)
    return TensorFile(view_tensors(name, buffer, header.tensors, header.data_start), header, buffer, "mapped")
