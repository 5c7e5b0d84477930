"""Memory through which the host casts what has no page."""

from __future__ import annotations

import memory

_MOST_BYTES = 1 << 30


class VRAMBuffer:
    def __init__(self, max_size: int, device: int) -> None:
        self._device, self._used_bytes = device, 0
        self._base = memory.DEVICES[device].addresses(_MOST_BYTES)

    def size(self) -> int:
        return self._used_bytes

    def get(self, size: int, offset: int = 0) -> tuple[VRAMBuffer, int, int]:
        if size + offset > _MOST_BYTES:
            raise RuntimeError("a simulated VRAM buffer cannot grow any more")
        self._used_bytes = max(self._used_bytes, size + offset)
        return (self, self._base + offset, size)

    def __del__(self) -> None:
        # The host waits for its streams before it drops one. What is read from there all the same is nonsense.
        memory.poison(self._device, self._base, self._used_bytes)
