"""Habits: the LoRAs that the last jobs used, oldest first, as far as they are worth remembering."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..queue.need import Tier

MAX_JOBS = 1000
"""What came before these weighs nothing any more, and learning them all again takes at most 0.15 s."""
MAX_ALIKE = 30
"""Jobs in a row with the same LoRAs: one long batch must not push everything else out, and more of it teach nothing."""
MAX_CHARACTERS = 1 << 18


class NamedLora(NamedTuple):
    name: str
    """The catalog's."""
    tier: Tier
    """Where a job has read it."""


class Run(NamedTuple):
    """Jobs in a row that used the same."""

    loras: tuple[NamedLora, ...]
    jobs: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(lora.name for lora in self.loras)

    @property
    def characters(self) -> int:
        return sum(len(lora.name) for lora in self.loras)


class Habits:
    """Bounded: the oldest are forgotten."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs: deque[Run] = deque()
        self._jobs = 0
        self._characters = 0
        for run in runs:
            self.add(run)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def add(self, run: Run) -> None:
        """Jobs without LoRAs are no habit."""
        if not run.loras or run.jobs < 1:
            return
        if self._runs and self._runs[-1].loras == run.loras:
            last = self._runs.pop()
            self._count(last, -1)
            run = Run(run.loras, last.jobs + run.jobs)
        run = run._replace(jobs=min(run.jobs, MAX_ALIKE))
        self._runs.append(run)
        self._count(run, 1)
        while self._jobs > MAX_JOBS or self._characters > MAX_CHARACTERS:
            self._count(self._runs.popleft(), -1)

    def stacks(self) -> Iterator[tuple[str, ...]]:
        """The names of every job, as the predictor learns them."""
        for run in self._runs:
            yield from [run.names] * run.jobs

    def _count(self, run: Run, sign: int) -> None:
        self._jobs += sign * run.jobs
        self._characters += sign * run.characters
