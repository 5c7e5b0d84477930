"""`eager`: every tensor, in private memory, file after file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..reading.private import read_private
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class EagerLoadingStrategy:
    """Reads each file with one thread into one private buffer and hands out views of it."""

    name: ClassVar[str] = "eager"
    summary: ClassVar[str] = "small files, slow disks, and reading in the background"
    constraints: ClassVar[Constraints] = Constraints()

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        for path in request.paths:
            header = gathering.header(path)
            with gathering.clock.stage("read"):
                file = read_private(header, request.pace, spare=request.spare, opened=request.opened)
            gathering.add(header.path, file.tensors, buffer_bytes=file.nbytes)
            # What was cast goes before the next file is read.
            del file
        return gathering.result(self.name)
