"""`fast_single_file`: one large file in one pass, at the speed of the machine rather than of one thread."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from .direct import can_read_directly, read_tensors_directly
from .filling import Pace
from .gathering import Gathering
from .header import SafetensorsHeader
from .page_cache import resident_bytes
from .private import read_private
from .strategy import Constraints, LoadRequest, LoadResult
from .tensor_file import TensorFile

_CACHED_SHARE = 0.9
"""From here on the page cache is faster than the disk would be for the rest."""
_MOST_THREADS = 4
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class FastSingleFileLoadingStrategy:
    """Asks the kernel how much of the file it has. Cached: a few threads copy it into huge pages. Not cached: a few
    direct
    reads keep the disk busy, which leaves the page cache to others."""

    name: ClassVar[str] = "fast_single_file"
    summary: ClassVar[str] = "one file from about 64 MiB on, that somebody waits for"
    constraints: ClassVar[Constraints] = Constraints(max_files=1)

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        header = gathering.header(request.paths[0])
        with gathering.clock.stage("read"):
            file = _read(header, request.pace)
        gathering.add(header.path, file.tensors, buffer_bytes=file.nbytes)
        return gathering.result(self.name)


def _read(header: SafetensorsHeader, pace: Pace) -> TensorFile:
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    cached_bytes = resident_bytes(header.path)
    if cached_bytes is not None and cached_bytes < header.file_bytes * _CACHED_SHARE and can_read_directly(header):
        try:
            # The disk wants a queue whether or not there are as many cores.
            return read_tensors_directly(header, pace, threads=_MOST_THREADS)
        except OSError:
            pass
    return read_private(header, pace, threads=threads, chunk_bytes=_CHUNK_BYTES)
