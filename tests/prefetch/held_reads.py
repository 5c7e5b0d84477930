"""Reads that stop in the middle until the test says so: real threads, no clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from warmstack.loaders.rate_limit import RateLimit

from .world import ManualPool, run

DEADLINE_S = 30.0


class HeldRead:
    """One call in a thread of its own. Made, it has stopped at its first chunk, or it is over."""

    def __init__(self, call: Callable[[], Any], future: Future[Any], current: threading.local) -> None:
        self.is_over = False
        self._current = current
        self._paused = threading.Event()
        self._may_go = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(call, future), daemon=True)
        self._thread.start()
        assert self._paused.wait(DEADLINE_S), "a read neither stopped nor ended"

    def let_go(self) -> None:
        self._may_go.set()
        self._thread.join(DEADLINE_S)
        assert self.is_over, "a read never ended"

    def pause(self) -> None:
        self._paused.set()
        assert self._may_go.wait(DEADLINE_S), "nobody let the read go"

    def _run(self, call: Callable[[], Any], future: Future[Any]) -> None:
        self._current.read = self
        run(call, future)
        self.is_over = True
        self._paused.set()


class HeldReads(ManualPool):
    """Reads begin and end when the test says so; what happens in between finds them half way."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[HeldRead] = []
        self._current = threading.local()

    def begin_next(self) -> None:
        read = HeldRead(*self.waiting.popleft(), self._current)
        if read.is_over:
            read.let_go()
        else:
            self.under_way.append(read)

    def end(self, index: int) -> None:
        self.under_way.pop(index).let_go()

    def end_all(self) -> None:
        while self.under_way:
            self.end(0)

    def pause(self) -> None:
        """Called at every chunk: stops the read that makes the call, if it is one of these."""
        read = getattr(self._current, "read", None)
        if read is not None:
            read.pause()

    def close(self) -> None:
        self.end_all()
        super().close()


class Pausing(RateLimit):
    """The limit of a read, with a pause before every chunk."""

    def __init__(self, limiter: RateLimit, pause: Callable[[], None]) -> None:
        super().__init__(limiter.bytes_per_s)
        self._limiter = limiter
        self._pause = pause

    def spend(self, nbytes: int, cancelled: Callable[[], bool] | None = None) -> None:
        self._pause()
        self._limiter.spend(nbytes, cancelled)
