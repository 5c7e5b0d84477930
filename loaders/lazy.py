"""`lazy`: views of the mapped files; a tensor's bytes are read when it is first used, or when it is placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .gathering import Gathering
from .mapped import map_file
from .strategy import Constraints, LoadRequest, LoadResult
from .views import view_tensors


@dataclass(frozen=True, slots=True)
class LazyLoadingStrategy:
    """Only what the device map asks for: tensors on `"disk"` are neither read nor built. On the CPU a slice of a view
    reads the pages of that slice alone."""

    name: ClassVar[str] = "lazy"
    summary: ClassVar[str] = "files larger than the free memory, and slices of a few tensors"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        for path in request.paths:
            header = gathering.header(path)
            entries = {key: header.tensors[key] for key in gathering.wanted(header)}
            request.pace.allow(path, sum(entry.end - entry.start for entry in entries.values()))
            with gathering.clock.stage("map"):
                views = view_tensors(path, map_file(header), entries, header.data_start)
            gathering.add(header.path, views)
        return gathering.result(self.name)
