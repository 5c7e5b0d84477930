"""Which model files to bring into the page cache, for the jobs in the queue. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from ...lora.library.file import AdapterKey
from ..queue.job import JobKey
from .file import ModelFile


class JobModels(NamedTuple):
    """The model files of one visible job, each once, as far as they have been looked up."""

    key: JobKey
    running: bool
    files: tuple[ModelFile, ...]
    is_whole: bool = True
    """Nothing is left to look up."""


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


class Needed(NamedTuple):
    """What the jobs need of the disk, whatever room there is."""

    fetches: tuple[ModelFetch, ...] = ()
    """Earliest need first, each file once."""
    in_use_bytes: int = 0
    """What the running job has of its models."""


def needed_models(jobs: Sequence[JobModels], held: Container[AdapterKey] = frozenset()) -> Needed:
    """`jobs` in running order; `held`: models that the host has from the job that ran last.

    Models of the running job are left alone, the host has them. Pickles are never opened. What is not known yet is not
    waited for: one name on a share that is gone would keep all models cold.
    """
    in_use: dict[AdapterKey, int] = {}
    seen: set[AdapterKey] = set()
    fetches: list[ModelFetch] = []
    for position, job in enumerate(jobs):
        if job.running:
            in_use.update((file.key, file.size_bytes) for file in job.files)
            continue
        for file in job.files:
            key = file.key
            if key in in_use or key in seen:
                continue
            seen.add(key)
            if key not in held and not file.is_pickle:
                fetches.append(ModelFetch(file, position))
    return Needed(tuple(fetches), sum(in_use.values()))


def plan_models(
    needed: Needed,
    room: Room,
    *,
    warm: Container[AdapterKey] = frozenset(),
    failed: Container[AdapterKey] = frozenset(),
    depth_jobs: int | None = None,
) -> ModelPlan:
    """What of `needed` fits. What does not is left out, and what is needed later may still fit beside it.

    The memory that the running job's models fill is left to it: the host may read them again from the page cache while
    it samples.
    """
    left_bytes = min(room.spare_bytes, room.free_bytes - needed.in_use_bytes)
    fetches: list[ModelFetch] = []
    wanted: set[AdapterKey] = set()
    for fetch in needed.fetches:
        if depth_jobs is not None and fetch.position > depth_jobs:
            break
        key = fetch.file.key
        if key not in failed and key.size_bytes <= left_bytes:
            left_bytes -= key.size_bytes
            wanted.add(key)
            if key not in warm:
                fetches.append(fetch)
    return ModelPlan(tuple(fetches), frozenset(wanted))
