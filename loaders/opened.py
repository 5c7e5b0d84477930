"""Opening weight files: every OSError becomes a SafetensorsLoadError, and a file that changes meanwhile is noticed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import NamedTuple

from .errors import SafetensorsLoadError


class FileStamp(NamedTuple):
    """What a stat tells about a file's content: two equal stamps of one file mean equal bytes."""

    size_bytes: int
    mtime_ns: int


def stamp_of(file: FileIO) -> FileStamp:
    stat = os.fstat(file.fileno())
    return FileStamp(stat.st_size, stat.st_mtime_ns)


@contextmanager
def open_raw(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """An unbuffered file, whose `readinto` goes straight into the caller's memory without the GIL."""
    try:
        with FileIO(os.fspath(path), "rb") as file:
            yield file
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SafetensorsLoadError(
            os.fspath(path), f"cannot be read ({reason}); check that it is there and readable"
        ) from error


def require_stamp(path: str, file: FileIO, expected: FileStamp) -> None:
    """Raise when `file` is no longer what it was when `expected` was taken."""
    if stamp_of(file) != expected:
        raise SafetensorsLoadError(path, "changed while it was being read; load it again once the writer is done")


def read_exactly(path: str, file: FileIO, target: memoryview) -> None:
    """Fill `target` from the file's position; one call as a rule, since only signals and 2 GiB make reads short."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])
        if not count:
            raise SafetensorsLoadError(path, f"ends {len(target) - filled} bytes too early; copy or download it again")
        filled += count
