"""FakeDevice: a copy engine without a GPU, for the tests of whoever uploads. Nothing waits for a clock."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .copy_device import CopyEvent

_POISON = 0xA5

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class FakeDevice:
    """`CopyDevice` whose memory is the host's and whose bus is slow: a copy happens when it is waited for, or when more
    than `lag` copies are queued, and reads its source only then.

    Fresh memory is poisoned, so is pinned memory once it was copied, and so is device memory once it was given back:
    bytes that were never sent, slots that are filled too early, results that are read too early and buffers that are
    given back too early give wrong numbers, and not by luck the right ones. `read_later` is work that the computing
    stream has queued; it runs when it is waited for.

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
        self.memory_limit_bytes = memory_limit_bytes
        self.failing_copy = failing_copy
        self.pinned_bytes = 0
        self.pins = 0
        self.copies = 0
        self.peak_in_flight = 0
        self.allocated_bytes = 0
        """Device memory that nobody else could have: what is alive, and what queued work still reads."""
        self.peak_allocated_bytes = 0
        self.overwritten = 0
        """Copies whose source was no longer what it was when they were queued."""
        self.events: list[FakeCopyEvent] = []
        self._pinned_limit_bytes = pinned_limit_bytes
        self._queues: list[deque[_Copy]] = [deque() for _ in range(streams)]
        self._memories: dict[int, Bytes] = {}
        self._recorded: set[int] = set()
        self._computing: deque[Callable[[], None]] = deque()
        self._computed = 0
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
        with self._lock:
            if self.memory_limit_bytes is not None and self.allocated_bytes + nbytes > self.memory_limit_bytes:
                raise MemoryError(f"no {nbytes} bytes on the device")
            self.allocated_bytes += nbytes
            self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
            memory = np.full(nbytes, _POISON, np.uint8)
            # The tensors own `loan`; the memory stays behind, to be poisoned under whoever still looks at it.
            loan = memory[:]
            tensor = torch.from_numpy(loan)
            self._memories[tensor.data_ptr()] = memory
            weakref.finalize(loan, self._give_back, tensor.data_ptr())
            return tensor

    def copy(self, target: torch.Tensor, source: torch.Tensor, stream: int) -> FakeCopyEvent:
        with self._lock:
            number, self.copies = self.copies, self.copies + 1
            if number == self.failing_copy:
                raise RuntimeError("the bus is broken")
            if target.is_inference() and not torch.is_inference_mode_enabled():
                raise RuntimeError("Inplace update to inference tensor outside InferenceMode is not allowed")
            event = FakeCopyEvent(self, stream)
            self.events.append(event)
            self._queues[stream].append(_Copy(number, self._memory_of(target), source, event))
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            while self.in_flight > self.lag:
                self._perform_next(min(filter(None, self._queues), key=lambda queue: queue[0].number))
            return event

    def queued(self) -> CopyEvent:
        return _Moment(self, self.queued_until())

    def perform_until(self, event: FakeCopyEvent, stream: int) -> None:
        """Perform the copies of `stream` up to the one of `event`; the other streams stay where they are."""
        with self._lock:
            while not event.done:
                self._perform_next(self._queues[stream])

    def perform_all(self) -> None:
        """The bus catches up."""
        with self._lock:
            for queue in self._queues:
                while queue:
                    self._perform_next(queue)

    def read_later(self, tensor: torch.Tensor) -> FakeRead:
        """Work of the computing stream that reads all of `tensor` when it runs, and does not keep it alive."""
        with self._lock:
            read = FakeRead(self, self._computed + len(self._computing) + 1, self._memory_of(tensor))
            self._computing.append(read.run)
            return read

    def compute_all(self) -> None:
        """The computing stream catches up."""
        self.compute_until(self.queued_until())

    def compute_until(self, number: int) -> None:
        """Run the queued work up to the one with that number, from 1 on."""
        with self._lock:
            while self._computed < number:
                self._computed += 1
                self._computing.popleft()()

    def has_computed(self, number: int) -> bool:
        return self._computed >= number

    def record(self, buffer: torch.Tensor | None) -> FakeFence:
        """The computing stream uses `buffer`: given back, it is kept until what is queued there then is through."""
        if buffer is not None:
            with self._lock:
                self._recorded.add(buffer.untyped_storage().data_ptr())
        return FakeFence(self)

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` lies in memory of the device."""
        return tensor.untyped_storage().data_ptr() in self._memories

    def queued_until(self) -> int:
        return self._computed + len(self._computing)

    def _memory_of(self, tensor: torch.Tensor) -> Bytes:
        base = tensor.untyped_storage().data_ptr()
        start = tensor.data_ptr() - base
        return self._memories[base][start : start + tensor.numel() * tensor.dtype.itemsize]

    def _perform_next(self, queue: deque[_Copy]) -> None:
        copy = queue.popleft()
        self.overwritten += not torch.equal(copy.source, copy.expected)
        copy.target[:] = copy.source.numpy()
        copy.source.numpy()[:] = _POISON
        copy.event.done = True

    def _give_back(self, address: int) -> None:
        with self._lock:
            memory = self._memories.pop(address)
            is_recorded = address in self._recorded
            self._recorded.discard(address)

            def poison() -> None:
                memory.fill(_POISON)
                self.allocated_bytes -= len(memory)

            if is_recorded and self._computing:
                self._computing.append(poison)
            else:
                poison()

    def _unpin(self, nbytes: int) -> None:
        with self._lock:
            self.pinned_bytes -= nbytes


class FakeCopyEvent:
    """`CopyEvent` of a FakeDevice."""

    def __init__(self, device: FakeDevice, stream: int) -> None:
        self.done = False
        self.ordered = 0
        """How often somebody's work was put behind it."""
        self.waited = False
        """Whether the host has waited for it, so that other streams may go on without."""
        self._device = device
        self._stream = stream

    def wait(self) -> None:
        self.waited = True
        self._device.perform_until(self, self._stream)

    def order(self, buffer: torch.Tensor | None) -> FakeFence:
        # The tensors are the host's, and what a test computes with them happens at once.
        self.ordered += 1
        self._device.perform_until(self, self._stream)
        return self._device.record(buffer)


class FakeFence:
    """`Fence` of the one computing stream."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def __call__(self) -> CopyEvent:
        return self._device.queued()


class FakeRead:
    """What a queued reader has seen."""

    def __init__(self, device: FakeDevice, number: int, memory: Bytes) -> None:
        self._device = device
        self._number = number
        self._memory: Bytes | None = memory
        self._seen = b""

    @property
    def seen(self) -> bytes:
        """The bytes, read now at the latest."""
        self._device.compute_until(self._number)
        return self._seen

    def run(self) -> None:
        assert self._memory is not None
        self._seen, self._memory = self._memory.tobytes(), None


class _Moment:
    """`CopyEvent` of the computing stream."""

    def __init__(self, device: FakeDevice, number: int) -> None:
        self._device = device
        self._number = number

    @property
    def done(self) -> bool:
        return self._device.has_computed(self._number)

    def wait(self) -> None:
        self._device.compute_until(self._number)

    def order(self, buffer: torch.Tensor | None) -> FakeFence:
        self.wait()
        return self._device.record(buffer)


class _Copy:
    def __init__(self, number: int, target: Bytes, source: torch.Tensor, event: FakeCopyEvent) -> None:
        self.number = number
        self.target = target
        self.source = source
        self.expected = source.clone()
        self.event = event
