"""What a load cost: seconds by stage, bytes, and the memory it held."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LoadingMetrics:
    """One load, measured by the strategy that did it."""

    strategy: str
    files: int
    tensors: int
    loaded_bytes: int
    """Bytes of the tensors that were loaded, as stored in the file."""
    peak_bytes: int
    """Most memory that the load itself held at once, mapped file pages not counted."""
    duration_s: float
    stages_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage (`header`, `read`, `place`), in the order in which they ran."""

    @property
    def bytes_per_s(self) -> float:
        return self.loaded_bytes / self.duration_s if self.duration_s else 0.0


class StageClock:
    """Seconds by stage; a stage that runs again adds up."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started_s = clock()
        self.stages_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started_s = self._clock()
        try:
            yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + self._clock() - started_s

    def elapsed_s(self) -> float:
        return self._clock() - self._started_s
