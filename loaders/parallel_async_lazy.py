"""`parallel_async_lazy`: what the device map selects, and nothing else, by several readers into private memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from .gathering import Gathering
from .selection import read_selected
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class ParallelAsyncLazyLoadingStrategy:
    """Reads the selected bytes of each file with up to `workers` threads, which share even one large tensor. Await it
    through `ModelLoader.load_shards_async`."""

    name: ClassVar[str] = "parallel_async_lazy"
    summary: ClassVar[str] = "a part of one file or of many that must outlive them"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    workers: int = 4

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        threads = max(1, min(self.workers, 2 * (os.cpu_count() or 1)))
        for path in request.paths:
            header = gathering.header(path)
            with gathering.clock.stage("read"):
                selected = read_selected(header, gathering.wanted(header), request.pace, threads=threads)
            gathering.add(header.path, selected.tensors, buffer_bytes=selected.nbytes)
        return gathering.result(self.name)
