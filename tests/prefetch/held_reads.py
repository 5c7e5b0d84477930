"""Reads that stop in the middle until the test says so: real threads, no clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from warmstack.loaders.system.rate_limit import RateLimit

from .world import Cancelled, ManualPool, run

DEADLINE_S = 30.0


class HeldRead:
    """One call in a thread of its own, which may read several files. It stops at the first chunk of each until
    `let_go`, and wherever it is paused."""

    def __init__(self, call: Callable[[], Any], future: Future[Any], current: threading.local) -> None:
        self.is_over = False
        self.is_held = False
        self._asked = 0
        self._current = current
        self._may_go = threading.Event()
        self._passed: object = None
        """The limit of the file that was let go, which is another one for every file."""
        self._thread = threading.Thread(target=self._run, args=(call, future), daemon=True)
        self._thread.start()
        self.come_to_rest()

    def let_go(self) -> None:
        self.is_held = False
        self._may_go.set()
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Until it is over, held, or paused: asked twice from one pause, whether it was cancelled, it has found in
        between that it must still wait."""
        asked, deadline_s = self._asked, time.monotonic() + DEADLINE_S
        while not (self.is_over or self.is_held or self._asked >= asked + 2):
            assert time.monotonic() < deadline_s, "a read neither stops nor ends"
            time.sleep(0.0002)
        if self.is_over:
            self._thread.join(DEADLINE_S)

    def hold(self, limiter: object) -> None:
        """Called by the read itself."""
        if limiter is not self._passed:
            self.is_held = True
            assert self._may_go.wait(DEADLINE_S), "nobody let the read go"
            self._may_go.clear()
            self._passed = limiter

    def ask(self, cancelled: Cancelled) -> bool:
        self._asked += 1
        return cancelled()

    def _run(self, call: Callable[[], Any], future: Future[Any]) -> None:
        self._current.read = self
        run(call, future)
        self.is_over = True


class HeldReads(ManualPool):
    """Reads begin and end when the test says so; what happens in between finds them half way."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[HeldRead] = []
        self._current = threading.local()

    @property
    def held(self) -> list[HeldRead]:
        return [read for read in self.under_way if read.is_held]

    def begin_next(self) -> None:
        self.under_way.append(HeldRead(*self.waiting.popleft(), self._current))
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """Until every read is over, held or paused by whoever has started it."""
        for read in self.under_way:
            read.come_to_rest()
        self.under_way = [read for read in self.under_way if not read.is_over]

    def end(self, index: int) -> None:
        """Lets one of `held` go on to its end."""
        self.held[index].let_go()
        self.come_to_rest()

    def pass_chunk(self, limiter: RateLimit | None, nbytes: int, cancelled: Cancelled | None) -> None:
        """Called before every chunk: stops the read that makes the call, if it is one of these."""
        read: HeldRead | None = getattr(self._current, "read", None)
        if read is not None:
            read.hold(limiter)
            cancelled = None if cancelled is None else _asking(read, cancelled)
        super().pass_chunk(limiter, nbytes, cancelled)

    def close(self) -> None:
        while self.under_way:
            for read in self.under_way:
                read.let_go()
            self.come_to_rest()
        super().close()


class Passing(RateLimit):
    """The limit of a read, which asks `reads` before every chunk."""

    def __init__(self, limiter: RateLimit, reads: ManualPool) -> None:
        super().__init__(limiter.bytes_per_s)
        self._limiter = limiter
        self._reads = reads

    def spend(self, nbytes: int, cancelled: Cancelled | None = None) -> None:
        self._reads.pass_chunk(self._limiter, nbytes, cancelled)


def _asking(read: HeldRead, cancelled: Cancelled) -> Cancelled:
    return lambda: read.ask(cancelled)
