"""ByteGate: a ceiling on the bytes that are between a reader and whoever uses them."""

from __future__ import annotations

import threading
from collections.abc import Callable

_POLL_S = 0.05
"""How long a cancelled reader may go on waiting."""


class ByteGate:
    """Lets at most `limit_bytes` through at a time; one piece larger than that passes alone. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._room = threading.Condition()
        self._inside_bytes = 0

    @property
    def inside_bytes(self) -> int:
        return self._inside_bytes

    def enter(self, nbytes: int, cancelled: Callable[[], bool]) -> bool:
        """Wait until `nbytes` have room and take it; False when `cancelled()` turns true first."""
        with self._room:
            while self._inside_bytes and self._inside_bytes + nbytes > self.limit_bytes:
                if cancelled():
                    return False
                self._room.wait(_POLL_S)
            self._inside_bytes += nbytes
            return True

    def leave(self, nbytes: int) -> None:
        with self._room:
            self._inside_bytes -= nbytes
            self._room.notify_all()
