"""ModelBoard: the models of the visible jobs, and the files that they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from ...lora.file import AdapterKey
from ..queue.job import JobKey
from ..queue.need import JobNeeds
from .file import ModelFile, ModelFinder
from .plan import JobModels

RELOOK_S = 10.0
"""How late a replaced file may be noticed."""

Found: TypeAlias = Mapping[tuple[str, str], tuple[ModelFile, ...]]


class ModelBoard:
    """Owned by the event loop."""

    def __init__(
        self,
        find: ModelFinder,
        offload: Callable[[Callable[[], Found]], Awaitable[Found]],
        clock: Callable[[], float],
    ) -> None:
        """`offload` runs a blocking call in a thread."""
        self._find = find
        self._offload = offload
        self._clock = clock
        self._needs: tuple[JobNeeds, ...] = ()
        self._jobs: tuple[JobModels, ...] = ()
        self._found: dict[tuple[str, str], tuple[ModelFile, ...]] = {}
        self._waits = False
        self._looking = False
        self._looked_at_s = clock()

    @property
    def jobs(self) -> tuple[JobModels, ...]:
        """In running order, one for each visible job. The same object while unchanged."""
        return self._jobs

    def observe(self, needs: tuple[JobNeeds, ...]) -> bool:
        """Takes in the queue; True when there is something to `look_up`."""
        if needs is not self._needs:
            before, self._needs = self._needs, needs
            self._follow(before)
        is_old = bool(needs) and self._clock() - self._looked_at_s >= RELOOK_S
        return (self._waits or is_old) and not self._looking

    async def look_up(self) -> None:
        """The names that are new; all of them when it is time."""
        names = {(model.kind, model.name) for job in self._needs for model in job.references.models}
        if self._clock() - self._looked_at_s >= RELOOK_S:
            self._looked_at_s = self._clock()
            self._found = {name: files for name, files in self._found.items() if name in names}
        else:
            names -= self._found.keys()
        self._looking = True
        try:
            self._found |= await self._offload(lambda: {name: tuple(self._find(*name)) for name in names})
        finally:
            self._looking = False
        self._take(tuple(map(self._models_of, self._needs)))

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
        self._waits = any(job.files is None for job in jobs)

    def _models_of(self, needs: JobNeeds) -> JobModels:
        return JobModels(needs.job.key, needs.job.running, self._files(needs))

    def _files(self, needs: JobNeeds) -> tuple[ModelFile, ...] | None:
        files: dict[AdapterKey, ModelFile] = {}
        for model in needs.references.models:
            found = self._found.get((model.kind, model.name))
            if found is None:
                return None
            for file in found:
                files.setdefault(file.key, file)
        return tuple(files.values())
