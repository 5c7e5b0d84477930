"""`parallel`: the shards of a checkpoint, several at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

from .gathering import Gathering
from .private import read_private
from .strategy import Constraints, LoadRequest, LoadResult
from .tensor_file import TensorFile


@dataclass(frozen=True, slots=True)
class ParallelLoadingStrategy:
    """One thread per shard, at most `workers` shards between the disk and their place, handed over in order."""

    name: ClassVar[str] = "parallel"
    summary: ClassVar[str] = "several files of 64 MiB or more together on a disk that likes a queue"
    constraints: ClassVar[Constraints] = Constraints(min_files=2)

    workers: int = 4
    """More than 4 made loading slower wherever it was measured."""

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        headers = deque(gathering.header(path) for path in request.paths)
        stop = threading.Event()
        pace = replace(request.pace, cancelled=lambda: stop.is_set() or _cancelled(request))
        workers = max(1, min(self.workers, len(headers), 2 * (os.cpu_count() or 1)))
        reading: deque[Future[TensorFile]] = deque()
        with ThreadPoolExecutor(workers, "warmstack-shard") as pool:
            try:
                while headers or reading:
                    while headers and len(reading) < workers:
                        reading.append(pool.submit(read_private, headers.popleft(), pace))
                    with gathering.clock.stage("read"):
                        file = reading.popleft().result()
                    waiting_bytes = sum(future.result().nbytes for future in reading if future.done())
                    gathering.add(file.header.path, file.tensors, buffer_bytes=file.nbytes, waiting_bytes=waiting_bytes)
            finally:
                stop.set()
        return gathering.result(self.name)


def _cancelled(request: LoadRequest) -> bool:
    return request.pace.cancelled is not None and request.pace.cancelled()
