"""FakeDevice: a copy engine without a GPU, for the tests of whoever uploads. Nothing waits for a clock."""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np
import torch

_POISON = 0xA5


class FakeDevice:
    """`CopyDevice` whose memory is the host's and whose bus is slow: a copy happens when it is waited for, or when more
    than `lag` copies are queued, and reads its source only then.

    Fresh memory is poisoned, and so is pinned memory once it was copied: bytes that were never sent, slots that are
    filled too early and results that are read too early give wrong numbers, and not by luck the right ones.

    `pinned_limit_bytes` and `memory_limit_bytes` make `pin` and `allocate` fail beyond them, and the copy number
    `failing_copy`, from 0 on, fails."""

    device = torch.device("cpu")

    def __init__(
        self,
        *,
        streams: int = 1,
        lag: int = 1 << 30,
        pinned_limit_bytes: int | None = None,
        memory_limit_bytes: int | None = None,
        failing_copy: int | None = None,
    ) -> None:
        self.lag = lag
        self.pinned_bytes = 0
        self.pins = 0
        self.copies = 0
        self.peak_in_flight = 0
        self.overwritten = 0
        """Copies whose source was no longer what it was when they were queued."""
        self.events: list[FakeCopyEvent] = []
        self._pinned_limit_bytes = pinned_limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._failing_copy = failing_copy
        self._queues: list[deque[_Copy]] = [deque() for _ in range(streams)]
        # A finalizer may run while this thread is inside.
        self._lock = threading.RLock()

    @property
    def streams(self) -> int:
        return len(self._queues)

    @property
    def in_flight(self) -> int:
        return sum(map(len, self._queues))

    def pin(self, nbytes: int) -> torch.Tensor:
        with self._lock:
            if self._pinned_limit_bytes is not None and self.pinned_bytes + nbytes > self._pinned_limit_bytes:
                raise MemoryError(f"no {nbytes} bytes to pin")
            self.pinned_bytes += nbytes
            self.pins += 1
        owner = np.full(nbytes, _POISON, np.uint8)
        weakref.finalize(owner, self._unpin, nbytes)
        return torch.from_numpy(owner)

    def allocate(self, nbytes: int, stream: int) -> torch.Tensor:
        if self._memory_limit_bytes is not None and nbytes > self._memory_limit_bytes:
            raise MemoryError(f"no {nbytes} bytes on the device")
        return torch.full((nbytes,), _POISON, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor, stream: int) -> FakeCopyEvent:
        with self._lock:
            number, self.copies = self.copies, self.copies + 1
            if number == self._failing_copy:
                raise RuntimeError("the bus is broken")
            event = FakeCopyEvent(self, stream)
            self.events.append(event)
            self._queues[stream].append(_Copy(number, target, source, event))
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            while self.in_flight > self.lag:
                self._perform_next(min(filter(None, self._queues), key=lambda queue: queue[0].number))
            return event

    def perform_until(self, event: FakeCopyEvent, stream: int) -> None:
        """Perform the copies of `stream` up to the one of `event`; the other streams stay where they are."""
        with self._lock:
            while not event.done:
                self._perform_next(self._queues[stream])

    def _perform_next(self, queue: deque[_Copy]) -> None:
        copy = queue.popleft()
        self.overwritten += not torch.equal(copy.source, copy.expected)
        copy.target.copy_(copy.source)
        copy.source.fill_(_POISON)
        copy.event.done = True

    def _unpin(self, nbytes: int) -> None:
        with self._lock:
            self.pinned_bytes -= nbytes


class FakeCopyEvent:
    """`CopyEvent` of a FakeDevice."""

    def __init__(self, device: FakeDevice, stream: int) -> None:
        self.done = False
        self.ordered = 0
        """How often somebody's work was put behind it."""
        self._device = device
        self._stream = stream

    def wait(self) -> None:
        self._device.perform_until(self, self._stream)

    def order(self, buffer: torch.Tensor) -> None:
        self.ordered += 1
        self.wait()


class _Copy:
    def __init__(self, number: int, target: torch.Tensor, source: torch.Tensor, event: FakeCopyEvent) -> None:
        self.number = number
        self.target = target
        self.source = source
        self.expected = source.clone()
        self.event = event
