"""plan_models: which model files to bring into the page cache, for the jobs in the queue. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from ..lora.file import AdapterKey
from .model_file import ModelFile


class JobModels(NamedTuple):
    """The model files of one visible job, each once; None until they have been looked up."""

    job_id: str
    running: bool
    files: tuple[ModelFile, ...] | None


class ModelFetch(NamedTuple):
    """One file to warm. `position` is that of the first job that needs it; 0 is running or next."""

    file: ModelFile
    position: int


class ModelPlan(NamedTuple):
    """`fetches` in the order in which to start them."""

    fetches: tuple[ModelFetch, ...] = ()
    wanted: frozenset[AdapterKey] = frozenset()
    """Everything that may be warm, read or not: a read of anything else may stop."""


class Room(NamedTuple):
    """Memory that models may fill."""

    spare_bytes: int
    """What the page budget leaves beside the LoRAs."""
    free_bytes: int
    """What the machine has left beyond its headroom and those LoRAs, the page cache counted as free."""


def plan_models(
    jobs: Sequence[JobModels],
    room: Room,
    *,
    held: frozenset[AdapterKey] = frozenset(),
    warm: Container[AdapterKey] = frozenset(),
    failed: Container[AdapterKey] = frozenset(),
    depth_jobs: int | None = None,
) -> ModelPlan:
    """Earliest need first, `jobs` in running order. `held`: models that the host has from the job that ran last.

    Models of the running job are left alone, the host has them, and so is the memory that they fill: the host may read
    them again from the page cache while it samples. What does not fit is left out, and what is needed later may still
    fit beside it. Nothing is planned before the running job is known.
    """
    if any(job.running and job.files is None for job in jobs):
        return ModelPlan()
    in_use = {file.key: file.size_bytes for job in jobs if job.running for file in job.files or ()}
    left_bytes = min(room.spare_bytes, room.free_bytes - sum(in_use.values()))
    fetches: list[ModelFetch] = []
    wanted: set[AdapterKey] = set()
    for position, job in enumerate(jobs):
        if job.running:
            continue
        if depth_jobs is not None and position > depth_jobs:
            break
        for file in job.files or ():
            key = file.key
            if key in in_use or key in held or key in wanted or key in failed:
                continue
            if file.size_bytes > left_bytes or file.is_pickle:
                continue
            left_bytes -= file.size_bytes
            wanted.add(key)
            if key not in warm:
                fetches.append(ModelFetch(file, position))
    return ModelPlan(tuple(fetches), frozenset(wanted))
