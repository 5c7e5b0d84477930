"""ModelBoard: the models of the visible jobs, and the files that they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from ..lora.file import AdapterKey
from .model_file import ModelFile, ModelFinder
from .model_plan import JobModels
from .need import JobNeeds

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
        self._by_id: dict[str, JobModels] = {}
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
            self._needs = needs
            self._rebuild(self._by_id)
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
        self._rebuild({})

    def job(self, job_id: str) -> JobModels | None:
        """None for a job that is not visible."""
        return self._by_id.get(job_id)

    def _rebuild(self, known: Mapping[str, JobModels]) -> None:
        by_id: dict[str, JobModels] = {}
        for needs in self._needs:
            job_id, running = needs.job.job_id, needs.job.running
            job = known.get(job_id)
            if job is None or job.files is None:
                job = JobModels(job_id, running, self._files(needs))
            elif job.running is not running:
                job = job._replace(running=running)
            by_id[job_id] = job
        self._by_id = by_id
        self._jobs = tuple(by_id.values())
        self._waits = any(job.files is None for job in self._jobs)

    def _files(self, needs: JobNeeds) -> tuple[ModelFile, ...] | None:
        files: dict[AdapterKey, ModelFile] = {}
        for model in needs.references.models:
            found = self._found.get((model.kind, model.name))
            if found is None:
                return None
            for file in found:
                files.setdefault(file.key, file)
        return tuple(files.values())
