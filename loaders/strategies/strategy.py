"""The seam of the loading strategies: what is asked, what a strategy can do, why it refuses, what comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..files.header import SafetensorsHeader, read_header
from ..files.other_formats import GGUF_SUFFIX, PICKLE_SUFFIXES
from ..memory.spare_memory import SpareMemory
from ..placing.device_map import DeviceMap
from ..reading.filling import Pace
from ..reading.opened import OpenFiles
from ..telemetry import LoadingMetrics

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load and where to."""

    paths: tuple[str, ...]
    device: str = "cpu"
    """For every tensor that `device_map` says nothing about."""
    device_map: DeviceMap | None = None
    dtype: torch.dtype | None = None
    """Floating-point tensors are cast to it; None leaves them as they are."""
    pace: Pace = field(default_factory=Pace)
    low_memory: bool = False
    """Never hold a tensor and its copy of all tensors at once: what is cast or moved goes through piece by piece."""
    spare: SpareMemory | None = field(default=None, hash=False, compare=False)
    """Where private memory comes from and goes to when its tensors are gone; None: the system. Callers that were given
    none take the process's (`process_spare`)."""
    at_once: int = 1
    """Loads that go on at the same time, this one included: they share the cores."""
    headers: Mapping[str, SafetensorsHeader] = field(default_factory=dict, hash=False, compare=False)
    """Headers that somebody has read and checked already, by path."""
    opened: OpenFiles | None = field(default=None, hash=False, compare=False)
    """The files of this load, each opened once; None: each reader opens its own."""

    def header(self, path: str) -> SafetensorsHeader:
        return self.headers[path] if path in self.headers else read_header(path, opened=self.opened)

    @property
    def copies(self) -> bool:
        """True when what was read is not what is handed out: it is cast, or it leaves the CPU."""
        return self.dtype is not None or self.device != "cpu" or (self.device_map is not None and self.device_map.moves)

    def devices(self, keys: Mapping[str, object]) -> dict[str, str]:
        """key -> device of those `keys` that are to be loaded."""
        if self.device_map is None:
            return dict.fromkeys(keys, self.device)
        return self.device_map.assign(keys, self.device)


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a strategy can do, as data: the registry asks it and the documentation lists it."""

    max_files: int | None = None
    min_files: int = 1
    leaves_on_disk: bool = False
    """Can honour `"disk"` in a device map without reading those tensors."""

    def refusal(self, request: LoadRequest) -> str | None:
        """Why a strategy with these constraints cannot do `request`, or None when it can."""
        count = len(request.paths)
        if count < self.min_files:
            return f"wants at least {self.min_files} files, not {count}"
        if self.max_files is not None and count > self.max_files:
            return f"loads at most {self.max_files} file, not {count}"
        if not self.leaves_on_disk and request.device_map is not None and request.device_map.keeps_on_disk:
            return "reads whole files and the device map leaves tensors on disk"
        return next(filter(None, map(_format_refusal, request.paths)), None)


def _format_refusal(path: str) -> str | None:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (*PICKLE_SUFFIXES, GGUF_SUFFIX):
        return f"reads safetensors, not {suffix}"
    return None


@dataclass(frozen=True, slots=True, eq=False)
class LoadResult(Mapping[str, "torch.Tensor"]):
    """The tensors, as a mapping that `load_state_dict` takes as it is, with what the load cost."""

    tensors: dict[str, torch.Tensor]
    metadata: Mapping[str, str]
    """Of the first file: the shards of one model repeat it."""
    metrics: LoadingMetrics
    reasons: tuple[str, ...] = ()
    """Why `auto` took this strategy, or why the one that was named was not asked; else empty."""

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class LoadingStrategy(Protocol):
    """One way to load: a frozen dataclass whose fields are its settings. `load` may be called from any thread; it keeps
    no state between calls."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str:
        """One line: when it is the right one."""
        ...

    @property
    def constraints(self) -> Constraints: ...

    def load(self, request: LoadRequest) -> LoadResult: ...
