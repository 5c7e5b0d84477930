"""OpenLog: the files of a folder that anybody opens, as the kernel tells (Linux)."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_IN_OPEN = 0x20
_EVENT = struct.Struct("iIII")


class OpenLog:
    """An audit hook would hear of every open too, and of a million other things."""

    def __init__(self, *folders: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders = {self._watch(folder): folder for folder in folders}

    def opened(self) -> set[str]:
        """Paths of the files that were opened since the last call."""
        paths = set()
        while events := self._read():
            offset = 0
            while offset < len(events):
                watch, _, _, length = _EVENT.unpack_from(events, offset)
                start = offset + _EVENT.size
                name = events[start : start + length].rstrip(b"\0").decode()
                if name:
                    paths.add(str(self._folders[watch] / name))
                offset = start + length
        return paths

    def close(self) -> None:
        os.close(self._fd)

    def _watch(self, folder: Path) -> int:
        watch = int(self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_OPEN))
        assert watch > 0, os.strerror(ctypes.get_errno())
        return watch

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return b""
