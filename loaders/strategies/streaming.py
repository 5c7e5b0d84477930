"""`streaming`: tensor after tensor through a bounded window, so that the checkpoint is never in memory twice."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from ..reading.stream import stream_pieces
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class StreamingLoadingStrategy:
    """A few threads read while the caller's places and casts. Host memory above what is handed out: at most `max_bytes`
    and one tensor. It wins where tensors are cast or leave the CPU; where they stay as they are it copies them in more
    pieces than others do."""

    name: ClassVar[str] = "streaming"
    summary: ClassVar[str] = "casting or moving to a device with little host memory"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    max_bytes: int = 256 << 20

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        headers = [gathering.header(path) for path in request.paths]
        wanted = [(header, gathering.wanted(header)) for header in headers]
        stream = stream_pieces(wanted, request.pace, max_bytes=self.max_bytes, opened=request.opened)
        with closing(gathering.clock.each("read", stream)) as pieces:
            for header, tensors, size_bytes, waiting_bytes in pieces:
                gathering.add(header.path, tensors, buffer_bytes=size_bytes, waiting_bytes=waiting_bytes - size_bytes)
        return gathering.result(self.name)
