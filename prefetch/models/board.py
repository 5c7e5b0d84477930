"""ModelBoard: the models of the visible jobs, and the files that they are."""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import NamedTuple, TypeAlias

from ...loaders.system.disk_kind import Disk
from ...lora.library.file import AdapterKey
from ..queue.job import JobKey
from ..queue.need import JobNeeds
from ..reading.lane import taken
from ..rest import rest_s
from .file import ModelFile, ModelFinder
from .plan import JobModels

RELOOK_S = 10.0
"""From one look at a name to the next, more where they take long: a replaced file is noticed so late."""
AWAY_S = 30.0
"""A name without a file is looked up again after so long, however long looks take: a share that hung is back soon."""
PATIENCE_S = 0.25
"""How long other names wait for one that is being looked up."""
LOOKS = 24
"""Names that may hang at a time, each in a thread: on a share that is gone for ever."""
LOOKS_IN_FOLDER = 8
"""Of these in one folder: what else it holds may lie on that share, too."""

Name: TypeAlias = tuple[str, str]
"""Kind and name."""


class _Known(NamedTuple):
    """What the last look at a name has found, and when, as its thread saw it: the event loop may stand still for
    reasons of its own."""

    files: tuple[ModelFile, ...]
    began_s: float
    ended_s: float


class _Look:
    """Names being looked up by one thread, nearest need first."""

    def __init__(self, find: ModelFinder, clock: Callable[[], float], names: Iterable[Name]) -> None:
        self.names = set(names)
        """Less those that were found, or taken back."""
        self.is_late = False
        self._find = find
        self._clock = clock
        self._ahead = deque(names)
        self._done: deque[tuple[Name, _Known]] = deque()

    def run(self) -> None:
        """For a thread."""
        while (name := taken(self._ahead.popleft)) is not None:
            began_s = self._clock()
            files = tuple(self._find(*name))
            self._done.append((name, _Known(files, began_s, self._clock())))

    def take_back(self) -> None:
        """Leaves it the name that it is at."""
        self.is_late = True
        while (name := taken(self._ahead.pop)) is not None:
            self.names.discard(name)

    def take(self) -> dict[Name, _Known]:
        """What was found since the last call."""
        found = {}
        while self._done:
            name, found[name] = self._done.popleft()
            self.names.discard(name)
        return found


class ModelBoard:
    """Owned by the event loop."""

    def __init__(
        self,
        find: ModelFinder,
        offload: Callable[[Callable[[], None]], Awaitable[None]],
        clock: Callable[[], float],
        disk_of: Callable[[str], Disk | None],
    ) -> None:
        """`offload` runs a blocking call in a thread; `disk_of` knows on which disk a path lies, or gives None."""
        self._find = find
        self._offload = offload
        self._clock = clock
        self._disk_of = disk_of
        self._needs: tuple[JobNeeds, ...] = ()
        self._jobs: tuple[JobModels, ...] = ()
        self._known: dict[Name, _Known] = {}
        self._waits = False
        """Some name may be left to look up."""
        self._looks: list[_Look] = []
        self._due_at_s = math.inf
        """When the next known name is to be looked up again."""

    @property
    def jobs(self) -> tuple[JobModels, ...]:
        """In running order, one for each visible job. The same object while unchanged."""
        return self._jobs

    def observe(self, needs: tuple[JobNeeds, ...]) -> bool:
        """Takes in the queue; True when there is something to `look_up`."""
        if needs is not self._needs:
            before, self._needs = self._needs, needs
            self._follow(before)
        if len(self._looks) == LOOKS or not all(look.is_late for look in self._looks):
            return False
        if needs and self._clock() >= self._due_at_s:
            self._known = {name: self._known[name] for name in self._names() if name in self._known}
            # What is due and cannot be looked up yet waits for a look that goes on, whose end tells.
            self._due_at_s = min((at_s for at_s in self._due().values() if at_s > self._clock()), default=math.inf)
            self._waits = True
        self._waits = self._waits and bool(self._left())
        return self._waits

    async def look_up(self, found: Callable[[], None] = lambda: None) -> None:
        """The names that are new, and those whose time has come. `found()` is called when `jobs` has changed."""
        if names := self._left():
            await self._run(_Look(self._find, self._clock, names), found)

    async def _run(self, look: _Look, found: Callable[[], None]) -> None:
        self._looks.append(look)
        overdue = asyncio.get_running_loop().call_later(PATIENCE_S, self._on_overdue, look, found)
        try:
            await self._offload(look.run)
        finally:
            overdue.cancel()
            self._looks.remove(look)
            self._take_in(look, found)

    def _on_overdue(self, look: _Look, found: Callable[[], None]) -> None:
        look.take_back()
        self._take_in(look, found)

    def _names(self) -> dict[Name, None]:
        """In the order of need."""
        return dict.fromkeys((model.kind, model.name) for job in self._needs for model in job.references.models)

    def _left(self) -> list[Name]:
        """To look up, new names first. Where a name hangs, those that were found there before mean what they meant:
        each would hang, too."""
        now_s, due_at_s = self._clock(), self._due()
        held = set[Name]().union(*(look.names for look in self._looks))
        stuck = {disk for name in held for disk in self._disks_of(name)}
        crowds = Counter(map(_folder_of, held))
        names = (name for name in self._names() if due_at_s.get(name, now_s) <= now_s and name not in held)
        free = (
            name
            for name in names
            if stuck.isdisjoint(self._disks_of(name)) and crowds[_folder_of(name)] < LOOKS_IN_FOLDER
        )
        return sorted(free, key=self._known.__contains__)

    def _due(self) -> dict[Name, float]:
        """When each known name is to be looked up again: all that lie on one disk for a small part of the time."""
        looked: dict[Hashable, list[tuple[float, float]]] = {}
        for name, (_, began_s, ended_s) in self._known.items():
            looked.setdefault(self._place_of(name), []).append((began_s, ended_s))
        rests_s = {place: rest_s(RELOOK_S, _covered_s(spans)) for place, spans in looked.items()}
        return {
            name: known.ended_s + min(rests_s[self._place_of(name)], math.inf if known.files else AWAY_S)
            for name, known in self._known.items()
        }

    def _place_of(self, name: Name) -> Hashable:
        """Names that hang together: those of a disk, of a folder where the disk is not known."""
        path = next((file.path for file in self._known[name].files), None)
        return _folder_of(name) if path is None else self._disk_of(path) or os.path.dirname(path)

    def _disks_of(self, name: Name) -> set[Disk | None]:
        known = self._known.get(name)
        return {self._disk_of(file.path) for file in known.files} if known else set()

    def _take_in(self, look: _Look, found: Callable[[], None]) -> None:
        before = self._jobs
        self._known |= look.take()
        self._due_at_s = min(self._due().values(), default=math.inf)
        self._take(tuple(map(self._models_of, self._needs)))
        self._waits = bool(self._left())
        if self._jobs != before:
            found()

    def job(self, key: JobKey) -> JobModels | None:
        """None for a job that is not visible."""
        return next((job for job in self._jobs if job.key == key), None)

    def _follow(self, before: tuple[JobNeeds, ...]) -> None:
        """Most looks find that the first job has started, or that it has gone; then only the ends cost anything."""
        needs = self._needs
        for gone in (0, 1):
            kept = before[gone + 1 :]
            if kept and needs[1 : len(kept) + 1] == kept:
                ends = map(self._models_of, (needs[0], *needs[len(kept) + 1 :]))
                self._take((next(ends), *self._jobs[gone + 1 :], *ends))
                return
        self._take(tuple(map(self._models_of, needs)))

    def _take(self, jobs: tuple[JobModels, ...]) -> None:
        self._jobs = jobs
        self._waits |= any(not job.is_whole for job in jobs)

    def _models_of(self, needs: JobNeeds) -> JobModels:
        files: dict[AdapterKey, ModelFile] = {}
        is_whole = True
        for model in needs.references.models:
            known = self._known.get((model.kind, model.name))
            is_whole &= known is not None
            for file in known.files if known else ():
                files.setdefault(file.key, file)
        return JobModels(needs.job.key, needs.job.running, tuple(files.values()), is_whole)


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """How much time they take together, where some lie side by side."""
    covered_s, until_s = 0.0, -math.inf
    for began_s, ended_s in sorted(spans):
        covered_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    return covered_s


def _folder_of(name: Name) -> Name:
    return name[0], os.path.dirname(name[1])
