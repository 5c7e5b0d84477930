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


def stamp_path(path: str) -> FileStamp:
    """The stamp of the file at `path`, without opening it."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return FileStamp(stat.st_size, stat.st_mtime_ns)


@contextmanager
def open_raw(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """An unbuffered file, whose `readinto` goes straight into the caller's memory without the GIL."""
    name = os.fspath(path)
    try:
        file = FileIO(name, "rb")
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from error
    try:
        with file:
            yield file
    except OSError as error:
        raise unreadable(name, error) from error


def require_stamp(path: str, file: FileIO, expected: FileStamp) -> None:
    """Raise when `file` is no longer what it was when `expected` was taken."""
    if stamp_of(file) != expected:
        raise SafetensorsLoadError(path, "changed while it was being read; load it again once the writer is done")


def unreadable(path: str, error: OSError | ValueError) -> SafetensorsLoadError:
    """For an error of the system, or of a name that no file can have."""
    cause = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return SafetensorsLoadError(path, f"cannot be read ({cause}); check that it is there and readable")
