"""Tensors as they arrive: one thread reads ahead, as far as a number of bytes allows."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import NamedTuple

import torch

from .byte_gate import ByteGate
from .errors import LoadCancelledError
from .filling import CHUNK_BYTES, Pace, fill
from .header import SafetensorsHeader, TensorEntry
from .opened import open_raw, require_stamp
from .private import allocate
from .views import Buffer, view_tensors

_SMALL_BYTES = 1 << 20


class StreamedTensor(NamedTuple):
    """One tensor in memory of its own."""

    header: SafetensorsHeader
    key: str
    tensor: torch.Tensor
    waiting_bytes: int
    """Bytes read ahead and not yet taken, this tensor's included, when it was handed over."""


def stream_tensors(
    wanted: Iterable[tuple[SafetensorsHeader, list[str]]], pace: Pace, *, max_bytes: int
) -> Generator[StreamedTensor, None, None]:
    """The tensors of each (header, keys), in the order of the files, while the next ones are being read.

    At most `max_bytes` are read and not yet taken (one larger tensor passes alone); a tensor counts until the next one
    is asked for. Closing the iterator stops the reader."""
    gate, stop = ByteGate(max_bytes), threading.Event()
    arrived: SimpleQueue[StreamedTensor | None] = SimpleQueue()
    with ThreadPoolExecutor(1, "warmstack-stream") as pool:
        reading = pool.submit(_read_ahead, list(wanted), pace, gate, stop, arrived)
        try:
            while (item := arrived.get()) is not None:
                nbytes = _size_bytes(item.header.tensors[item.key])
                yield item._replace(waiting_bytes=gate.inside_bytes)
                del item
                gate.leave(nbytes)
            reading.result()
        finally:
            stop.set()


def _read_ahead(
    wanted: list[tuple[SafetensorsHeader, list[str]]],
    pace: Pace,
    gate: ByteGate,
    stop: threading.Event,
    arrived: SimpleQueue[StreamedTensor | None],
) -> None:
    try:
        for header, keys in wanted:
            _read_file(header, keys, pace, gate, stop, arrived)
    finally:
        # Whatever ended the reading, who waits for the next tensor must wake.
        arrived.put(None)


def _read_file(
    header: SafetensorsHeader,
    keys: list[str],
    pace: Pace,
    gate: ByteGate,
    stop: threading.Event,
    arrived: SimpleQueue[StreamedTensor | None],
) -> None:
    def stopped() -> bool:
        return stop.is_set() or pace.stopped

    path = header.path
    with open_raw(path) as file:
        require_stamp(path, file, header.stamp)
        for key in keys:
            entry = header.tensors[key]
            nbytes = _size_bytes(entry)
            if stopped() or not gate.enter(nbytes, stopped):
                raise LoadCancelledError(path, "cancelled while it was being read")
            buffer = _memory(path, nbytes)
            with memoryview(buffer) as memory, memory[:nbytes] as target:
                fill(path, file, [(target, header.data_start + entry.start)], pace, chunk_bytes=CHUNK_BYTES)
            tensor = view_tensors(path, buffer, {key: entry._replace(start=0, end=nbytes)}, 0)[key]
            arrived.put(StreamedTensor(header, key, tensor, 0))
            del tensor, buffer
        require_stamp(path, file, header.stamp)


def _memory(path: str, nbytes: int) -> Buffer:
    """A mapping of its own costs a small tensor more than its bytes."""
    return bytearray(nbytes) if nbytes < _SMALL_BYTES else allocate(path, nbytes)


def _size_bytes(entry: TensorEntry) -> int:
    return entry.end - entry.start
