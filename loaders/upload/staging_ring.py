"""StagingRing: a few equal slots of host memory, filled and copied in turns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .copy_device import CopyEvent


class Slot:
    """Whoever queues a copy from `memory`, (slot_bytes,) uint8, sets `event`."""

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory
        self.event: CopyEvent | None = None


class StagingRing:
    """The slots of `memory`, a whole number of `slot_bytes`, (bytes,) uint8. Thread-safe."""

    def __init__(self, memory: torch.Tensor, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self.nbytes = len(memory)
        self._returned = threading.Condition()
        self._slots = deque(Slot(part) for part in memory.split(slot_bytes))
        self._count = len(self._slots)

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """The slot that was used longest ago, once nobody has it and its copy is complete. Who has one must not ask for
        another: all could wait for each other."""
        with self._returned:
            self._returned.wait_for(lambda: bool(self._slots))
            slot = self._slots.popleft()
        try:
            _finish(slot)
            yield slot
        finally:
            with self._returned:
                self._slots.append(slot)
                self._returned.notify()

    def close(self) -> None:
        """Let go of the memory, after the last copy from it. For when nobody uses the ring any more."""
        with self._returned:
            self._returned.wait_for(lambda: len(self._slots) == self._count)
            for slot in self._slots:
                _finish(slot)
            self._slots.clear()


def _finish(slot: Slot) -> None:
    if slot.event is not None:
        slot.event.wait()
        slot.event = None
