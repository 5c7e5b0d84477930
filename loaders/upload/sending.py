"""Sending: one upload on its way through the slots, carried out by a few threads at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack, contextmanager, suppress

import torch

from ..cancelling import Cancelled, never
from ..errors import LoadCancelledError, SafetensorsLoadError
from .copy_device import CopyDevice, CopyEvent
from .staging_ring import StagingRing
from .upload_source import UploadSource

_FIRST_BYTES = 1 << 20
"""The bus stands still until the first slot is full, so the first one of each thread takes little, and the second four
times as much."""


class Sending:
    """Fills slots from `source` and queues their copies to `target`, (source.nbytes,) uint8, on one stream."""

    def __init__(
        self, name: str, source: UploadSource, target: torch.Tensor, ring: StagingRing, device: CopyDevice, stream: int
    ) -> None:
        """`name` is for errors."""
        self._name = name
        self._source = source
        self._target = target
        self._ring = ring
        self._device = device
        self._stream = stream
        self._lock = threading.Lock()
        self._last: CopyEvent | None = None
        self._stopped = False
        self._cancelled = never

    def run(self, threads: int, pool: Executor | None, cancelled: Cancelled) -> CopyEvent | None:
        """Returns the event of the copy that was queued last, which is that of all, when every copy is queued. `pool`
        is for all threads but the caller's.

        Raises what a writer raises, LoadCancelledError between two slots once `cancelled()` is true, and
        SafetensorsLoadError when the device refuses a copy, each after what was queued is complete."""
        self._cancelled = cancelled
        try:
            self._share_out(threads, pool)
        except BaseException:
            if self._last is not None:
                with suppress(RuntimeError):
                    self._last.wait()
            raise
        finally:
            # An error keeps this frame, a pool its tasks until a thread gets to them, cancelled ones too: none may
            # keep the device's buffer, or what the caller's `cancelled` knows.
            del self._source, self._target
            self._cancelled = never
        return self._last

    def _share_out(self, threads: int, pool: Executor | None) -> None:
        spans = chunk_spans(self._source.nbytes, self._ring.slot_bytes, threads)
        turns = iter(spans)
        ended: list[Future[None]] = []
        helpers = 0 if pool is None else min(threads, len(spans)) - 1
        futures = [pool.submit(self._work, turns) for _ in range(helpers)] if pool is not None else []
        try:
            self._work(turns)
        finally:
            # One that has not started by now has nothing left to do.
            ended += [future for future in futures if not future.cancel()]
            futures.clear()
            wait(ended)
        # No name may hold the one that raises: its error holds this frame.
        while ended:
            ended.pop().result()

    # In inference mode, whoever calls: the target may be of that mode, the slots may, and this may be another thread.
    @torch.inference_mode()
    def _work(self, turns: Iterator[tuple[int, int]]) -> None:
        try:
            while (span := self._next(turns)) is not None:
                start, end = span
                with ExitStack() as taken:
                    with self._refusals():
                        slot = taken.enter_context(self._ring.slot())
                    part = slot.memory[: end - start]
                    self._source.write(start, part)
                    # The order of the queue is that of the events.
                    with self._lock, self._refusals():
                        event = self._device.copy(self._target[start:end], part, self._stream)
                        self._last = slot.event = event
        except BaseException:
            self._stopped = True
            raise

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """A RuntimeError is the device's. Not around a writer or `cancelled`, whose errors are the caller's."""
        try:
            yield
        except RuntimeError as error:
            cause = str(error).partition("\n")[0]
            raise SafetensorsLoadError(self._name, f"cannot go to {self._device.device}: {cause}") from error

    def _next(self, turns: Iterator[tuple[int, int]]) -> tuple[int, int] | None:
        with self._lock:
            span = None if self._stopped else next(turns, None)
            if span is not None and self._cancelled():
                raise LoadCancelledError(self._name, "cancelled while it was being uploaded")
            return span


def chunk_spans(nbytes: int, slot_bytes: int, threads: int) -> list[tuple[int, int]]:
    """(start, end) of each slot's worth, in order: small ones first, then whole slots."""
    spans: list[tuple[int, int]] = []
    start = 0
    while start < nbytes:
        size_bytes = min(slot_bytes, _FIRST_BYTES << min(2 * (len(spans) // threads), 40))
        spans.append((start, min(start + size_bytes, nbytes)))
        start += size_bytes
    return spans
