"""What a load cost: seconds by stage, bytes, and the memory it held."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadingMetrics:
    """One load, measured by the strategy that did it."""

    strategy: str
    files: int
    tensors: int
    loaded_bytes: int
    """Bytes of the tensors that were loaded, as stored in the file."""
    peak_bytes: int
    """Most private memory of the host that the load itself held at once, mapped file pages not counted: what the kernel
    has as the high-water mark. With a cast it lasts for milliseconds, which who looks from outside easily misses."""
    duration_s: float
    stages_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage (`header`, `read`, `place`), in the order in which they ran."""

    @property
    def bytes_per_s(self) -> float:
        return self.loaded_bytes / self.duration_s if self.duration_s else 0.0


def added_up(stages_s: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by stage of several loads together."""
    total_s: dict[str, float] = {}
    for stages in stages_s:
        for stage, seconds in stages.items():
            total_s[stage] = total_s.get(stage, 0.0) + seconds
    return total_s


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

    def each(self, name: str, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """`items`, where waiting for one is the stage. They are closed with it."""
        with closing(items):
            while True:
                with self.stage(name):
                    item = next(items, None)
                if item is None:
                    return
                yield item
                del item

    def elapsed_s(self) -> float:
        return self._clock() - self._started_s
