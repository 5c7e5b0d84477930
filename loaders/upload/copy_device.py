"""The seam to a device that copies on its own: pinned memory, streams, events. `CudaDevice` and `FakeDevice` fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch


class CopyEvent(Protocol):
    """The moment at which one piece of work of a stream, and every earlier one of it, is complete."""

    @property
    def done(self) -> bool: ...

    def wait(self) -> None:
        """Block this thread until then."""

    def order(self, buffer: torch.Tensor | None) -> Fence:
        """Let what the caller's current stream does from now on happen after that moment. Does not block.

        The memory of `buffer` is then kept from others until all that this stream has queued when it is given back is
        complete. With None that is the caller's care: the answer, called from any thread once the last use was queued
        there, tells when that stream will be through with it."""


Fence = Callable[[], CopyEvent]


class CopyDevice(Protocol):
    """Streams are numbers from 0 on. Thread-safe."""

    @property
    def device(self) -> torch.device: ...

    @property
    def streams(self) -> int: ...

    def pin(self, nbytes: int) -> torch.Tensor:
        """(nbytes,) uint8 of pinned host memory, pinned until the last reference goes. MemoryError if there is none."""

    def allocate(self, nbytes: int, stream: int) -> torch.Tensor:
        """(nbytes,) uint8 on the device, for copies of `stream` to write to; starts at a multiple of 16 bytes. It may
        be dropped while they do. MemoryError if there is no room."""

    def copy(self, target: torch.Tensor, source: torch.Tensor, stream: int) -> CopyEvent:
        """Queue a copy from host memory, `target` and `source` (n,) uint8, and return. `source` must stay as it is
        until the event. RuntimeError if nothing was queued."""

    def queued(self) -> CopyEvent:
        """The moment at which all that the caller's current stream has queued by now is complete."""
