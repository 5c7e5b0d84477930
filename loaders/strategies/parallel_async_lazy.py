"""`parallel_async_lazy`: what the device map selects, and nothing else, by several readers into private memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..reading.direct import READERS
from ..reading.selection import read_selected
from ..system.kernel import cores
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class ParallelAsyncLazyLoadingStrategy:
    """Reads the selected bytes of each file with up to `workers` threads (copies cached ones with one per core), which
    share even one large tensor. Await it through `ModelLoader.load_shards_async`."""

    name: ClassVar[str] = "parallel_async_lazy"
    summary: ClassVar[str] = "a part of one file or of many that must outlive them"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    workers: int = READERS

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        readers = -(-self.workers // request.at_once)
        copiers = max(1, min(self.workers, cores()) // request.at_once)
        for path in request.paths:
            header = gathering.header(path)
            keys = gathering.wanted(header)
            with gathering.clock.stage("read"):
                selected = read_selected(
                    header,
                    keys,
                    request.pace,
                    readers=readers,
                    copiers=copiers,
                    spare=request.spare,
                    opened=request.opened,
                )
            gathering.add(header.path, selected.tensors, buffer_bytes=selected.nbytes)
            # What was cast goes before the next file is read.
            del selected
        return gathering.result(self.name)
