"""ModelSnapshot: the model tier at one moment, and what a status shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...lora.library.file import AdapterKey
from ..queue.job import JobKey
from ..status import FetchStatus, ModelState, ModelStatus, PageStatus
from .file import ModelFile
from .plan import JobModels


class ModelSnapshot(NamedTuple):
    """Immutable, and equal to another when nothing that a status shows has changed."""

    jobs: tuple[JobModels, ...] = ()
    pages: Mapping[AdapterKey, bool] = {}
    failed: Mapping[AdapterKey, str] = {}
    loading: frozenset[AdapterKey] = frozenset()
    in_flight: tuple[FetchStatus, ...] = ()
    page: PageStatus = PageStatus()

    def of_jobs(self) -> dict[JobKey, tuple[ModelStatus, ...]]:
        """The models of every job, as far as they have been looked up."""
        in_use = {file.key for job in self.jobs if job.running for file in job.files}
        return {
            job.key: tuple(
                ModelStatus(
                    file.name,
                    file.kind,
                    "in_use" if file.key in in_use else self._state_of(file),
                    file.size_bytes,
                    self.failed.get(file.key, ""),
                )
                for file in job.files
            )
            for job in self.jobs
        }

    def _state_of(self, file: ModelFile) -> ModelState:
        if file.key in self.failed:
            return "failed"
        if file.key in self.loading:
            return "loading"
        return "ready" if file.key in self.pages else "cold"
