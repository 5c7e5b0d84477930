"""A model's file, mapped, and open as long as it is."""

from __future__ import annotations

import ctypes
import mmap
import os


class ModelMMAP:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY)
        # ctypes gives no address of what may not be written to. What is written here never comes to the file.
        self._memory = mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)

    def get(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._memory))

    def get_file_handle(self) -> int:
        return self._file

    def bounce(self) -> bool:
        return True

    def __del__(self) -> None:
        os.close(self._file)
