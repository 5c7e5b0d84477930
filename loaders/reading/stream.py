"""Tensors as they arrive: a few threads read ahead, as far as a number of bytes allows."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from io import FileIO
from typing import NamedTuple

import torch

from ..files.header import SafetensorsHeader
from .filling import Pace, fill
from .opened import OpenFiles, open_raw, require_stamp
from .private import allocate
from .views import Buffer, view_tensors

_PIECE_BYTES = 4 << 20
"""Neighbours that are smaller come in one piece: a read, memory and a hand-over for each would take longer than their
bytes."""
_READERS = 4
"""One copies cached bytes at half of the speed of two cores, and leaves a disk idle between two reads."""
_ALIGNMENT_BYTES = 64
_SMALL_BYTES = 1 << 20


class StreamedTensor(NamedTuple):
    """One tensor. Below 4 MiB it shares its memory with neighbours, of at most 4 MiB in all."""

    header: SafetensorsHeader
    key: str
    tensor: torch.Tensor
    waiting_bytes: int
    """As in StreamedPiece, when it was handed over."""


class StreamedPiece(NamedTuple):
    """A large tensor, or small ones that stand side by side in the file, in memory of its own."""

    header: SafetensorsHeader
    tensors: dict[str, torch.Tensor]
    size_bytes: int
    waiting_bytes: int
    """Bytes read ahead and not yet taken, this piece's included, when it was handed over."""


def stream_tensors(
    wanted: Iterable[tuple[SafetensorsHeader, list[str]]], pace: Pace, *, max_bytes: int
) -> Generator[StreamedTensor, None, None]:
    """The tensors of each (header, keys), in the order of the files, while the next ones are being read.

    At most `max_bytes` are read and not yet taken (one larger tensor passes alone); a tensor counts until the next one
    is asked for, a small one until its neighbours have been. Closing the iterator stops the readers, and waits for
    them: who may leave it half way closes it (`contextlib.closing`), since the garbage collector, which would, may come
    while Python starts a thread, and wait for ever."""
    with closing(stream_pieces(wanted, pace, max_bytes=max_bytes)) as pieces:
        for header, tensors, _, waiting_bytes in pieces:
            for key in list(tensors):
                # Whatever is still in `tensors` stays in memory until the next piece is there.
                yield StreamedTensor(header, key, tensors.pop(key), waiting_bytes)


def stream_pieces(
    wanted: Iterable[tuple[SafetensorsHeader, list[str]]],
    pace: Pace,
    *,
    max_bytes: int,
    opened: OpenFiles | None = None,
) -> Generator[StreamedPiece, None, None]:
    """As `stream_tensors`, with neighbours of up to 4 MiB together."""
    stop = threading.Event()
    pace = pace.until(stop.is_set)
    readers = _READERS if hasattr(os, "preadv") else 1
    # No thread waits for the consumer: one that did would keep the process from ending while somebody held the stream.
    with ExitStack() as files, ThreadPoolExecutor(readers, "warmstack-stream") as pool:
        try:
            upcoming = _with_sources(wanted, files, min(_PIECE_BYTES, max_bytes), opened)
            yield from _in_order(upcoming, pool, pace, max_bytes)
        finally:
            stop.set()


def _in_order(
    upcoming: Iterator[tuple[_Piece, _Source]], pool: ThreadPoolExecutor, pace: Pace, max_bytes: int
) -> Generator[StreamedPiece, None, None]:
    """The pieces, each asked for from the readers as soon as there is room for it."""
    asked: deque[tuple[_Piece, Future[dict[str, torch.Tensor]]]] = deque()
    waiting_bytes = 0
    following = next(upcoming, None)
    while asked or following is not None:
        while following is not None and (not waiting_bytes or waiting_bytes + following[0].size_bytes <= max_bytes):
            piece, source = following
            asked.append((piece, pool.submit(_read, piece, source, pace)))
            waiting_bytes += piece.size_bytes
            following = next(upcoming, None)
        piece, reading = asked.popleft()
        try:
            tensors = reading.result()
        finally:
            # Its error has this frame, which would keep the error and all that was read ahead in a cycle.
            del reading
        yield StreamedPiece(piece.header, tensors, piece.size_bytes, waiting_bytes)
        del tensors
        waiting_bytes -= piece.size_bytes


class _Piece(NamedTuple):
    """Data bytes `start` to `end` of a file."""

    header: SafetensorsHeader
    start: int
    end: int
    keys: list[str]

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


class _Source:
    """A file, open from the first of its pieces to the last. Thread-safe."""

    def __init__(self, header: SafetensorsHeader, pieces: int, opened: OpenFiles | None) -> None:
        self._header = header
        self._left = pieces
        self._opened = opened
        self._lock = threading.Lock()
        self._closing = ExitStack()
        self._file: FileIO | None = None

    @contextmanager
    def open(self) -> Iterator[FileIO]:
        """For one piece."""
        path = self._header.path
        with self._lock:
            if self._file is None:
                self._file = self._closing.enter_context(open_raw(path, self._opened, last=True))
                require_stamp(path, self._file, self._header.stamp)
        yield self._file
        with self._lock:
            self._left -= 1
            if not self._left:
                self.close()

    def close(self) -> None:
        self._closing.close()


def _with_sources(
    wanted: Iterable[tuple[SafetensorsHeader, list[str]]], files: ExitStack, most_bytes: int, opened: OpenFiles | None
) -> Iterator[tuple[_Piece, _Source]]:
    """Every piece with its file, which `files` closes if a reader does not."""
    for header, keys in wanted:
        pieces = list(_pieces(header, keys, most_bytes))
        source = _Source(header, len(pieces), opened)
        files.callback(source.close)
        yield from ((piece, source) for piece in pieces)


def _pieces(header: SafetensorsHeader, keys: Sequence[str], most_bytes: int) -> Iterator[_Piece]:
    piece = _Piece(header, 0, 0, [])
    for key in keys:
        _, _, start, end = header.tensors[key]
        if piece.keys and start == piece.end and end - piece.start <= most_bytes:
            piece.keys.append(key)
            piece = piece._replace(end=end)
            continue
        if piece.keys:
            yield piece
        piece = _Piece(header, start, end, [key])
    if piece.keys:
        yield piece


def _read(piece: _Piece, source: _Source, pace: Pace) -> dict[str, torch.Tensor]:
    header, path = piece.header, piece.header.path
    pace.allow(path, 0)
    # Aligned as in the file, whose writer aligned each tensor to its elements as a rule.
    lead_bytes = piece.start % _ALIGNMENT_BYTES
    buffer = _memory(path, lead_bytes + piece.size_bytes)
    with source.open() as file, memoryview(buffer) as memory:
        with memory[lead_bytes : lead_bytes + piece.size_bytes] as target:
            fill(path, file, [(target, header.data_start + piece.start)], pace)
        require_stamp(path, file, header.stamp)
    entries = {key: header.tensors[key].moved(lead_bytes - piece.start) for key in piece.keys}
    return view_tensors(path, buffer, entries, 0)


def _memory(path: str, nbytes: int) -> Buffer:
    """A mapping of its own costs a small piece more than its bytes, and each piece would find out anew that huge pages
    are slow: where they were, a LoRA took twice as long."""
    return bytearray(nbytes) if nbytes < _SMALL_BYTES else allocate(path, nbytes, huge_pages=False)
