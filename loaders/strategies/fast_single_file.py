"""`fast_single_file`: one large file in one pass, at the speed of the machine rather than of one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..reading.private import read_fast
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class FastSingleFileLoadingStrategy:
    """Asks the kernel how much of the file it has. Cached: a few threads copy it into huge pages. Not cached: direct
    reads keep the disk busy, which leaves the page cache to others."""

    name: ClassVar[str] = "fast_single_file"
    summary: ClassVar[str] = "one file from about 64 MiB on, that somebody waits for"
    constraints: ClassVar[Constraints] = Constraints(max_files=1)

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        header = gathering.header(request.paths[0])
        with gathering.clock.stage("read"):
            file = read_fast(header, request.pace, at_once=request.at_once, spare=request.spare, opened=request.opened)
        gathering.add(header.path, file.tensors, buffer_bytes=file.nbytes)
        return gathering.result(self.name)
