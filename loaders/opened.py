"""Opening weight files: every OSError becomes a SafetensorsLoadError, and a file that changes meanwhile is noticed."""

from __future__ import annotations

import os
import stat
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
    found = os.fstat(file.fileno())
    return FileStamp(found.st_size, found.st_mtime_ns)


def stamp_path(path: str) -> FileStamp:
    """The stamp of the file at `path`, without opening it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return FileStamp(found.st_size, found.st_mtime_ns)


@contextmanager
def open_raw(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """An unbuffered file, whose `readinto` goes straight into the caller's memory without the GIL."""
    name = os.fspath(path)
    try:
        _require_weights(name, os.stat(name).st_mode)
        file = FileIO(name, "rb")
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from error
    try:
        with file:
            yield file
    except OSError as error:
        raise unreadable(name, error) from error


def _require_weights(path: str, mode: int) -> None:
    """Before it is opened: a pipe would wait for a writer, and opening a device may do something. A folder is left to
    the system's own error."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SafetensorsLoadError(path, "is no regular file but a pipe or a device; put the weights in its place")


def require_stamp(path: str, file: FileIO, expected: FileStamp) -> None:
    """Raise when `file` is no longer what it was when `expected` was taken."""
    if stamp_of(file) != expected:
        raise SafetensorsLoadError(path, "changed while it was being read; load it again once the writer is done")


def unreadable(path: str, error: OSError | ValueError) -> SafetensorsLoadError:
    """For an error of the system, or of a name that no file can have."""
    cause = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return SafetensorsLoadError(path, f"cannot be read ({cause}); check that it is there and readable")
