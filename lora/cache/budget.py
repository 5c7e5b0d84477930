"""ByteBudget: the ledger of resident adapter bytes. It counts; it never evicts and never calls back."""

from __future__ import annotations

import threading
import weakref
from collections import deque


class Reservation:
    """`nbytes` of a budget, held until `release()`, until the owner named to `release_with` dies, or until dropped."""

    __slots__ = ("__weakref__", "_end", "_returned", "nbytes")

    def __init__(self, nbytes: int, returned: deque[int]) -> None:
        self.nbytes = nbytes
        self._returned = returned
        self._end: weakref.finalize[[int], object] = weakref.finalize(self, returned.append, nbytes)
        self._end.atexit = False

    def release(self) -> None:
        """Gives the bytes back. Idempotent; takes no lock."""
        self._end()

    def release_with(self, owner: object) -> None:
        """From now on the bytes are held exactly as long as `owner` (a weakly referable buffer) is alive."""
        if self._end.detach() is None:
            raise RuntimeError("the reservation was already released")
        self._end = weakref.finalize(owner, self._returned.append, self.nbytes)
        self._end.atexit = False


class ByteBudget:
    """Reserve before you allocate: the sum of live reservations never exceeds `limit_bytes`.

    Thread-safe. Bytes come back through a deque that every operation drains first: a finalizer may run inside any
    allocation, also while this thread holds a lock, so it must not take one. `resize` below what is in use evicts
    nothing; it only refuses new reservations until enough has come back.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lock = threading.Lock()
        self._returned: deque[int] = deque()
        self._used_bytes = 0
        self._peak_bytes = 0
        self._limit_bytes = _checked(limit_bytes)

    @property
    def limit_bytes(self) -> int:
        return self._limit_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes reserved now, those of evicted adapters whose buffer something still references included."""
        with self._lock:
            return self._settled_bytes()

    @property
    def peak_bytes(self) -> int:
        """The most that was ever reserved at once."""
        return self._peak_bytes

    def try_reserve(self, nbytes: int) -> Reservation | None:
        """A reservation of `nbytes`, or None when they do not fit beside what is reserved."""
        _checked(nbytes)
        with self._lock:
            used_bytes = self._settled_bytes() + nbytes
            if used_bytes > self._limit_bytes:
                return None
            reservation = Reservation(nbytes, self._returned)
            self._used_bytes = used_bytes
            self._peak_bytes = max(self._peak_bytes, used_bytes)
            return reservation

    def resize(self, limit_bytes: int) -> None:
        with self._lock:
            self._limit_bytes = _checked(limit_bytes)

    def _settled_bytes(self) -> int:
        while self._returned:
            self._used_bytes -= self._returned.popleft()
        return self._used_bytes


def _checked(nbytes: int) -> int:
    if nbytes < 0:
        raise ValueError(f"a number of bytes cannot be negative: {nbytes}")
    return nbytes
