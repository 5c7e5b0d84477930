"""torch.cuda of the simulated GPU: what torch's own Python stands on, so that as much as possible is still torch's."""

from __future__ import annotations

import time
from types import SimpleNamespace

import memory
import simulated_gpu_backend as backend
import streams
import torch

NAME = "simulated GPU (no GPU at all)"
_CYCLES_PER_S = 1.7e9
_CUDA = 1
"""Of torch's device types."""
_NOT_REGISTERED = 713
"""Of CUDA's errors."""


class Stream:
    """torch.cuda.Stream: a new one is the next of its device's pool."""

    _next = [0] * backend.DEVICES

    def __init__(
        self, device: object = None, priority: int = 0, *,
        stream_id: int | None = None, device_index: int | None = None, device_type: int = _CUDA,
    ) -> None:  # fmt: skip
        if stream_id is None:
            device_index = torch.cuda._utils._get_device_index(device, optional=True)
            stream_id = self._next[device_index] % (streams.STREAMS - 1) + 1
            self._next[device_index] += 1
        self.stream_id, self.device_index, self.device_type = stream_id, device_index, device_type
        self.device = torch.device("cuda", device_index)
        self.thread = streams.ALL[device_index][stream_id]
        streams.CONTEXTS.add(device_index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.thread is self.thread

    def __hash__(self) -> int:
        return hash(self.thread)

    @property
    def cuda_stream(self) -> int:
        return self.stream_id

    def synchronize(self) -> None:
        self.thread.synchronise()

    def wait_stream(self, stream: Stream) -> None:
        self.wait_event(stream.record_event())

    def wait_event(self, event: Event) -> None:
        recorded, number = event.stream, event.number
        if recorded is not None and recorded is not self.thread:
            self.thread.put(lambda: recorded.wait(number))

    def record_event(self) -> Event:
        event = Event()
        event.record(self)
        return event


class Event:
    """torch.cuda.Event: how far a stream has to come."""

    def __init__(self) -> None:
        self.stream: streams.Stream | None = None
        self.number = 0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = streams.current() if stream is None else stream.thread
        self.number = self.stream.queued

    def query(self) -> bool:
        return self.stream is None or self.stream.done >= self.number

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.wait(self.number)


def _exchange_device(index: int) -> int:
    before = backend.current_device()
    if index >= 0:
        backend.set_device(index)
    return before if index >= 0 else -1


def _set_stream(stream_id: int, device_index: int, device_type: int) -> None:
    streams.choose(streams.ALL[device_index][stream_id])


def _memory_stats(device: int) -> dict[str, dict[str, dict[str, int]]]:
    there = memory.DEVICES[device]
    return {
        "allocated_bytes": {"all": {"current": there.allocated_bytes, "peak": there.peak_bytes}},
        "active_bytes": {"all": {"current": there.allocated_bytes}},
        "reserved_bytes": {"all": {"current": there.reserved_bytes}},
    }


def _set_memory_fraction(fraction: float, device: int) -> None:
    memory.DEVICES[device].limit_bytes = fraction * memory.TOTAL_BYTES


def _mem_get_info(device: int) -> tuple[int, int]:
    return memory.TOTAL_BYTES - memory.DEVICES[device].reserved_bytes, memory.TOTAL_BYTES


def _host_register(address: int, nbytes: int, flags: int) -> int:
    backend.pin(address, nbytes)
    return 0


def _host_unregister(address: int) -> int:
    return 0 if backend.unpin(address) else _NOT_REGISTERED


def _empty_cache() -> None:
    for there in memory.DEVICES:
        there.empty_cache()


def _sleep(cycles: int) -> None:
    streams.current().put(lambda: time.sleep(cycles / _CYCLES_PER_S))


def _record_stream(tensor: torch.Tensor, stream: Stream) -> None:
    address = tensor.untyped_storage().data_ptr()
    if address:
        memory.of_address(address).record(address, stream.thread)


_BELOW_TORCH = {
    "_cuda_init": backend.initialise,
    "_cuda_getDeviceCount": lambda: backend.DEVICES,
    "_cuda_getDevice": backend.current_device,
    "_cuda_setDevice": backend.set_device,
    "_cuda_hasPrimaryContext": lambda device: device in streams.CONTEXTS,
    "_cuda_getCurrentStream": lambda device: (streams.current(device).ident, device, _CUDA),
    "_cuda_getCurrentRawStream": lambda device: streams.current(device).ident,
    "_cuda_setStream": _set_stream,
    "_cuda_synchronize": lambda: streams.synchronise(backend.current_device()),
    "_cuda_sleep": _sleep,
    "_cuda_memoryStats": _memory_stats,
    "_cuda_setMemoryFraction": _set_memory_fraction,
    "_cuda_emptyCache": _empty_cache,
}


def install() -> None:
    cuda = torch.cuda
    for name, value in _BELOW_TORCH.items():
        setattr(torch._C, name, value)
    cuda._cudart = SimpleNamespace(
        cudaMemGetInfo=_mem_get_info,
        cudaHostRegister=_host_register,
        cudaHostUnregister=_host_unregister,
    )
    # Looks for kernels that suit the GPU.
    cuda._queued_calls.clear()
    cuda._exchange_device = cuda._maybe_exchange_device = _exchange_device
    cuda.Stream = cuda.streams.Stream = Stream
    cuda.Event = cuda.streams.Event = Event
    cuda.get_device_name = lambda device=None: NAME
    # Random numbers are the CPU's.
    cuda.manual_seed_all = lambda seed: None
    torch.Tensor.record_stream = _record_stream
