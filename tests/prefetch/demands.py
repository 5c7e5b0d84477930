"""Demands as a running job makes them: in threads of their own, since they may wait for a read that somebody holds."""

from __future__ import annotations

import threading
import time

from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.lease import Lease
from warmstack.lora.library.file import AdapterKey, LoraFile

from .held_reads import DEADLINE_S


class Demand:
    """One acquire. Made, it waits for the prefetch of its file, or it is over."""

    def __init__(self, cache: AdapterCache, file: LoraFile, *, joins: bool) -> None:
        """`joins`: a prefetch of the file has stopped half way."""
        self.file = file
        self.error: BaseException | None = None
        self.lease: Lease | None = None
        self.is_cancelled = False
        self._cache = cache
        waiting = self._waiting()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not joins:
            self.join()
        deadline_s = time.monotonic() + DEADLINE_S
        while joins and not self.is_over and self._waiting() == waiting:
            assert time.monotonic() < deadline_s, "a demand did not join the prefetch in flight"
            time.sleep(0.0002)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def cancel(self) -> None:
        self.is_cancelled = True
        self.join()

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert self.is_over, "a waiter never woke"

    def take(self) -> Lease | None:
        """The lease, which this lets go of."""
        lease, self.lease = self.lease, None
        return lease

    def _run(self) -> None:
        try:
            self.lease = self._cache.acquire(self.file, cancelled=lambda: self.is_cancelled)
        except BaseException as error:
            self.error = error

    def _waiting(self) -> int:
        return sum(view.waiting for view in self._cache.snapshot().adapters)


def bytes_of(lease: Lease) -> bytes:
    """The data section of the leased file, as the tensors show it."""
    return b"".join(tensor.numpy().tobytes() for tensor in lease.adapter.tensors.values())


def is_content(lease: Lease, written: dict[AdapterKey, bytes]) -> bool:
    """Whether the adapter holds what was written under its identity."""
    return written[lease.adapter.key].endswith(bytes_of(lease))
