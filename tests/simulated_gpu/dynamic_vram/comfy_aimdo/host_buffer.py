"""RAM that the host pins piece by piece, and files that are read into it or straight to the device."""

from __future__ import annotations

import ctypes
import mmap
import os

import simulated_gpu_backend as backend
import streams

_NONSENSE = 0x5A


def read_file_to_device(
    file: int, at: int, nbytes: int, stream: int, target: int, device: int, mark_cold: bool = True
) -> None:
    read = ctypes.create_string_buffer(os.pread(file, nbytes, at), nbytes)
    _send(read, ctypes.addressof(read), nbytes, stream, target, device)


def _send(kept: object, source: int, nbytes: int, stream: int, target: int, device: int) -> None:
    """`kept`: what the source lies in, until it is copied."""
    there = backend.host_base(device) + target - backend.device_base(device)
    streams.ALL[device][stream].put(lambda kept=kept: ctypes.memmove(there, source, nbytes))


class HostBuffer:
    """Grows and shrinks at its end, and never moves."""

    def __init__(self, size: int, prewarm: int = 0, max_grow_size: int = 0, mark_cold: bool = True) -> None:
        self.size = size
        self._most_bytes = max(size, int(max_grow_size))
        self.memory = mmap.mmap(-1, max(self._most_bytes, mmap.PAGESIZE))
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def get_raw_address(self) -> int:
        return self._address

    def extend(self, size: int, reallocate: bool = False, register: bool = True) -> None:
        if self.size + size > self._most_bytes:
            raise RuntimeError("a simulated host buffer cannot grow any more")
        self.size += size

    def truncate(self, size: int, do_unregister: bool = True) -> None:
        if do_unregister:  # what the host pinned last begins there
            backend.unpin(self._address + size)
        # A copy from there that nobody waited for sends nonsense.
        ctypes.memset(self._address + size, _NONSENSE, self.size - size)
        self.size = size

    def read_file_slice(
        self, file: int, at: int, size: int, offset: int = 0, stream: int = 0, device_ptr: int = 0,
        device: int | None = None,
    ) -> None:  # fmt: skip
        ctypes.memmove(self._address + offset, os.pread(file, size, at), size)
        if device_ptr and device is not None:
            _send(self, self._address + offset, size, stream, device_ptr, device)
