"""CudaDevice: the copy engine of one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from .copy_device import Fence


class CudaDevice:
    """`CopyDevice` of torch.cuda, with `streams` copy streams of its own.

    More than one lets the uploads of several threads overlap; whether the link carries more that way is for
    `benchmarks/transfer.py` to say."""

    def __init__(self, device: torch.device | str = "cuda", *, streams: int = 1) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError(f"{device}: torch sees no CUDA device here; leave the tensors on the CPU")
        if streams < 1:
            raise ValueError(f"{streams} streams copy nothing; use at least 1")
        asked = torch.device(device)
        self.device = torch.device("cuda", torch.cuda.current_device() if asked.index is None else asked.index)
        self._streams = [torch.cuda.Stream(self.device) for _ in range(streams)]

    @property
    def streams(self) -> int:
        return len(self._streams)

    def pin(self, nbytes: int) -> torch.Tensor:
        """Given back, the memory goes to torch's own cache of pinned memory, and from there to whoever pins next."""
        try:
            with torch.cuda.device(self.device):
                return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)
        except RuntimeError as error:
            raise MemoryError(_first_line(error)) from error

    def allocate(self, nbytes: int, stream: int) -> torch.Tensor:
        # Taken from the copy stream's own pool: memory of the computing stream could be written to only after all work
        # that is queued there, which is what an upload beside a running model must not wait for.
        try:
            with self._queueing_on(stream):
                return torch.empty(nbytes, dtype=torch.uint8, device=self.device)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(_first_line(error)) from error

    def copy(self, target: torch.Tensor, source: torch.Tensor, stream: int) -> CudaCopyEvent:
        queue = self._streams[stream]
        with self._queueing_on(stream):
            target.copy_(source, non_blocking=True)
        try:
            return _moment(queue, self.device)
        except RuntimeError:
            # Without an event nobody would know when `source` may be written to again.
            queue.synchronize()
            raise

    def queued(self) -> CudaCopyEvent:
        return _moment(torch.cuda.current_stream(self.device), self.device)

    @contextmanager
    def _queueing_on(self, stream: int) -> Iterator[None]:
        # Without the outer one, the way back from the stream opens a context on the thread's own GPU: some hundred MB
        # of a device that has nothing to do with it.
        with torch.cuda.device(self.device), torch.cuda.stream(self._streams[stream]):
            yield


class CudaCopyEvent:
    """`CopyEvent` of torch.cuda."""

    def __init__(self, event: torch.cuda.Event, device: torch.device) -> None:
        self._event = event
        self._device = device

    @property
    def done(self) -> bool:
        return bool(self._event.query())

    def wait(self) -> None:
        self._event.synchronize()

    def order(self, buffer: torch.Tensor | None) -> Fence:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._event)
        if buffer is not None:
            buffer.record_stream(current)
        return partial(_moment, current, self._device)


def _moment(stream: torch.cuda.Stream, device: torch.device) -> CudaCopyEvent:
    """Now, in the order of `stream`."""
    event = torch.cuda.Event()
    event.record(stream)
    return CudaCopyEvent(event, device)


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
