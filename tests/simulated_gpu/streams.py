"""Streams: threads that carry out, one after the other and late, what is queued on them."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable

import simulated_gpu_backend as backend
import torch

DELAY_S = float(os.environ.get("SIMULATED_GPU_DELAY_MS", "2")) / 1000
"""The longest that a stream dawdles before an operation, three times in ten: what waits for nobody is then caught."""
SEED = os.environ.get("SIMULATED_GPU_SEED", "0")
STREAMS = 33
"""Of a device: the default one, and as many as torch hands out before it begins again."""

LOCK = threading.RLock()
"""Of all that is simulated. One, and reentrant, because the garbage collector may free a tensor in the middle of
anything here."""
FAILURES: list[str] = []
"""Of operations that nobody waited for. As on a real GPU, whoever waits next hears of them, and so does everybody after
that."""


class Stream:
    def __init__(self, device: int, ident: int) -> None:
        self.device, self.ident = device, ident
        self.queued = self.done = 0
        self._changed = threading.Condition(LOCK)
        self._queue: deque[Callable[[], object]] = deque()
        self._dawdle = random.Random(f"{SEED} {device} {ident}")
        self._thread: threading.Thread | None = None

    def put(self, work: Callable[[], object]) -> int:
        """The number of `work`: it is through once `done` is as high."""
        with LOCK:
            if self._thread is None:
                name = f"simulated stream {self.device}.{self.ident}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
            self._queue.append(work)
            self.queued += 1
            self._changed.notify_all()
            return self.queued

    def wait(self, number: int) -> None:
        with LOCK:
            self._changed.wait_for(lambda: self.done >= number)
            if FAILURES:
                raise RuntimeError(f"CUDA error (simulated): {FAILURES[0]}")

    def run(self, work: Callable[[], object]) -> object:
        """What `work` returns, when its turn has come."""
        results: list[object] = []
        self.wait(self.put(lambda: results.append(work())))
        return results[0]

    def synchronise(self) -> None:
        self.wait(self.queued)

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with LOCK:
                    self._changed.wait_for(lambda: bool(self._queue))
                    work = self._queue.popleft()
                if self._dawdle.random() < 0.3:
                    time.sleep(self._dawdle.random() * DELAY_S)
                try:
                    work()
                except Exception as error:
                    FAILURES.append(f"{type(error).__name__}: {error}")
                # What it kept alive is free before anybody hears that it is through.
                del work
                with LOCK:
                    self.done += 1
                    self._changed.notify_all()


ALL = [[Stream(device, ident) for ident in range(STREAMS)] for device in range(backend.DEVICES)]
"""By device and number; 0 is the default stream."""
CONTEXTS: set[int] = set()
"""Devices that somebody has used: each would take some hundred MB of its GPU."""
_chosen = threading.local()


def current(device: int | None = None) -> Stream:
    """Of this thread."""
    index = backend.current_device() if device is None else device
    CONTEXTS.add(index)
    return getattr(_chosen, str(index), ALL[index][0])


def choose(stream: Stream) -> None:
    CONTEXTS.add(stream.device)
    setattr(_chosen, str(stream.device), stream)


def synchronise(device: int) -> None:
    for stream in ALL[device]:
        stream.synchronise()
