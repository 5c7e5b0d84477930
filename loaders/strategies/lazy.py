"""`lazy`: views of the mapped files; a tensor's bytes are read when it is first used, or when it is placed."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import ClassVar

from ..files.header import SafetensorsHeader
from ..reading.filling import CHUNK_BYTES, Pace
from ..reading.mapped import map_file
from ..reading.opened import open_raw, require_stamp
from ..reading.selection import wanted_spans
from ..reading.views import view_tensors
from ..system import kernel
from .gathering import Gathering
from .strategy import Constraints, LoadRequest, LoadResult


@dataclass(frozen=True, slots=True)
class LazyLoadingStrategy:
    """Only what the device map asks for: tensors on `"disk"` are neither read nor built. On the CPU a slice of a view
    reads the pages of that slice, and what the system reads ahead of them (128 KiB as a rule, megabytes on some disks),
    unless `populate` brings in all that is asked for, in large requests, before the load returns."""

    name: ClassVar[str] = "lazy"
    summary: ClassVar[str] = "files larger than the free memory, and slices of a few tensors"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    populate: bool = False

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        for path in request.paths:
            header = gathering.header(path)
            entries = {key: header.tensors[key] for key in gathering.wanted(header)}
            request.pace.allow(path, 0)
            with open_raw(path, request.opened, last=True) as file:
                with gathering.clock.stage("map"):
                    mapping = map_file(header, file)
                    views = view_tensors(path, mapping, entries, header.data_start)
                if self.populate:
                    with gathering.clock.stage("read"):
                        _bring_in(header, list(entries), mapping, request.pace)
                gathering.add(path, views, mapped=not self.populate)
                if request.copies:
                    # Views show whatever the file becomes; copies would be of two files.
                    require_stamp(path, file, header.stamp)
        return gathering.result(self.name)


def _bring_in(header: SafetensorsHeader, keys: list[str], mapping: mmap.mmap, pace: Pace) -> None:
    for start, end in wanted_spans(header, keys):
        for first in range(start, end, CHUNK_BYTES):
            pace.allow(header.path, min(CHUNK_BYTES, end - first))
            kernel.populate(mapping, first, min(first + CHUNK_BYTES, end))
            pace.report(header.path, min(CHUNK_BYTES, end - first), min(first + CHUNK_BYTES, end))
