"""`lazy`: views of the mapped files; a tensor's bytes are read when it is first used, or when it is placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .gathering import Gathering
from .header import read_header
from .mapped import map_file
from .strategy import Constraints, LoadRequest, LoadResult
from .views import view_tensors


@dataclass(frozen=True, slots=True)
class LazyLoadingStrategy:
    """Only what the device map asks for: tensors on `"disk"` are neither read nor built. On the CPU a slice of a view
    reads the pages of that slice alone."""

    name: ClassVar[str] = "lazy"
    summary: ClassVar[str] = "a part of a file, or files larger than the free memory"
    constraints: ClassVar[Constraints] = Constraints(leaves_on_disk=True)

    def load(self, request: LoadRequest) -> LoadResult:
        gathering = Gathering(request)
        for path in request.paths:
            with gathering.clock.stage("header"):
                header = read_header(path)
            with gathering.clock.stage("map"):
                wanted = request.devices(header.tensors)
                entries = {key: header.tensors[key] for key in wanted}
                views = view_tensors(path, map_file(header), entries, header.data_start)
            request.pace.allow(path, sum(entry.end - entry.start for entry in entries.values()))
            gathering.add(header, views, 0)
        return gathering.result(self.name)
