"""Opening weight files: the system's OSErrors become SafetensorsLoadErrors, and a file that changes meanwhile is
noticed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from types import TracebackType
from typing import NamedTuple

from ..errors import SafetensorsLoadError

_MOST_OPEN = 100
"""Of one load. A process may have 256 files open on some systems; the shards beyond are opened once more for their
data."""


class FileStamp(NamedTuple):
    """What a stat tells about a file's content: two equal stamps of one file mean equal bytes."""

    size_bytes: int
    mtime_ns: int


def stamp_of(file: FileIO) -> FileStamp:
    with reading(str(file.name)):
        found = os.fstat(file.fileno())
    return FileStamp(found.st_size, found.st_mtime_ns)


def stamp_path(path: str) -> FileStamp:
    """The stamp of the file at `path`, without opening it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return FileStamp(found.st_size, found.st_mtime_ns)


class OpenFiles:
    """The files of one load: each is opened at its first use and closed after its last, or with the load. Thread-safe;
    readers of one file share its flags, and on systems without preadv its position."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, FileIO] = {}

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def file(self, path: str) -> FileIO | None:
        """None when as many are open as may be."""
        with self._lock:
            if path not in self._files and len(self._files) < _MOST_OPEN:
                self._files[path] = _open(path)
            return self._files.get(path)

    def take(self, path: str) -> FileIO | None:
        """The file of `path`, if it is open, to be closed by the caller."""
        with self._lock:
            return self._files.pop(path, None)


@contextmanager
def open_raw(path: str | os.PathLike[str], opened: OpenFiles | None = None, *, last: bool = False) -> Iterator[FileIO]:
    """An unbuffered file, whose `readinto` goes straight into the caller's memory without the GIL: that of `opened`,
    which stays open unless this is its `last` use, or one of its own."""
    name = os.fspath(path)
    shared = None if opened is None or last else opened.file(name)
    if shared is not None:
        yield shared
        return
    with (opened.take(name) if opened is not None else None) or _open(name) as file:
        yield file


@contextmanager
def reading(path: str) -> Iterator[None]:
    """An OSError is the file's. Around calls of the system alone: what a caller's callback raises is the caller's."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def _open(path: str) -> FileIO:
    try:
        _require_weights(path, os.stat(path).st_mode)
        return FileIO(path, "rb")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


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
