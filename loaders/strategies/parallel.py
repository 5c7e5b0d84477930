"""`parallel`: the shards of a checkpoint, the next ones read in threads while one finds its place."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from ..files.header import SafetensorsHeader
from ..reading.private import read_fast
from ..reading.tensor_file import TensorFile
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class ParallelLoadingStrategy:
    """At most `max_bytes` of shards, by their headers, are between the disk and their place; one larger shard goes
    alone. They are handed over in order."""

    name: ClassVar[str] = "parallel"
    summary: ClassVar[str] = "several files of 64 MiB or more together on a disk that likes a queue"
    constraints: ClassVar[Constraints] = Constraints(min_files=2)

    workers: int = 1
    """Shards that are being read at once, while another one is cast or sent. They share the threads that one has alone,
    and on every disk that was measured more got into each other's way."""
    max_bytes: int = 16 << 30

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        headers = deque(gathering.header(path) for path in request.paths)
        workers = max(1, min(self.workers, len(headers)))
        stop = threading.Event()
        pace = request.pace.until(stop.is_set)
        with ThreadPoolExecutor(workers, "warmstack-shard") as pool:
            shards = _Shards(pool, headers, replace(request, pace=pace), workers, self.max_bytes)
            try:
                while shards.pending:
                    with gathering.clock.stage("read"):
                        file = shards.take()
                    gathering.add(
                        file.header.path,
                        file.tensors,
                        buffer_bytes=file.nbytes,
                        waiting_bytes=shards.reserved_bytes - file.nbytes,
                    )
                    shards.release(file.nbytes)
                    del file
            finally:
                stop.set()
        return gathering.result(self.name)


class _Reading(NamedTuple):
    nbytes: int
    file: Future[TensorFile]


class _Shards:
    """Shards in order, read ahead as far as `workers` and `max_bytes` allow. For one consuming thread."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        headers: deque[SafetensorsHeader],
        request: LoadRequest,
        workers: int,
        max_bytes: int,
    ) -> None:
        self._pool = pool
        self._headers = headers
        self._request = request
        self._workers = workers
        self._max_bytes = max_bytes
        self._reading: deque[_Reading] = deque()
        self.reserved_bytes = 0
        """Of the shards that are being read, have been read, or are being placed."""

    @property
    def pending(self) -> bool:
        return bool(self._headers or self._reading)

    def take(self) -> TensorFile:
        """The next shard, whose bytes stay reserved until `release`; from here on those behind it are being read."""
        self._read_ahead()
        file = self._reading.popleft().file.result()
        self._read_ahead()
        return file

    def release(self, nbytes: int) -> None:
        self.reserved_bytes -= nbytes

    def _read_ahead(self) -> None:
        while self._headers and len(self._reading) < self._workers:
            nbytes = self._headers[0].data_bytes
            if self.reserved_bytes and self.reserved_bytes + nbytes > self._max_bytes:
                return
            self.reserved_bytes += nbytes
            self._reading.append(_Reading(nbytes, self._pool.submit(self._read, self._headers.popleft())))

    def _read(self, header: SafetensorsHeader) -> TensorFile:
        asked = self._request
        return read_fast(header, asked.pace, at_once=self._workers, spare=asked.spare, opened=asked.opened)
