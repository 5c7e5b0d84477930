"""From the prefetcher's state to what a status shows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..lora.file import AdapterKey
from .job import UnknownReference
from .need import JobNeeds, Need, shown_name
from .plan import FetchKey, Limits, tier_of
from .reading import Reading
from .status import AdapterState, AdapterStatus, FetchStatus, JobStatus, PlannedLora

if TYPE_CHECKING:
    from ..lora.cache_stats import CacheSnapshot

SHOWN_JOBS = 100


@dataclass(frozen=True, slots=True)
class Shelves:
    """Which files are where at one moment."""

    limits: Limits
    resident: Container[AdapterKey]
    pages: Container[AdapterKey]
    loading: Container[FetchKey]
    no_room: Container[AdapterKey]
    failed: Mapping[AdapterKey, str]

    def state_of(self, need: Need) -> AdapterState:
        file = need.file
        if file is None:
            return "ambiguous" if need.resolution.state == "ambiguous" else "missing"
        if file.problem or file.key in self.failed:
            return "failed"
        tier = tier_of(need, self.limits, self.no_room)
        if tier is not None and FetchKey(file.key, tier) in self.loading:
            return "loading"
        return "ready" if file.key in (self.resident if tier == "resident" else self.pages) else "cold"


def job_statuses(jobs: Sequence[JobNeeds], shelves: Shelves) -> tuple[JobStatus, ...]:
    """The first jobs, every adapter with its state."""
    return tuple(
        JobStatus(job.job.job_id, job.job.running, tuple(_adapters(job, shelves))) for job in jobs[:SHOWN_JOBS]
    )


def resident_keys(cached: CacheSnapshot) -> frozenset[AdapterKey]:
    """Adapters that are in memory, or that a demand is bringing there."""
    return frozenset(view.key for view in cached.adapters if view.state != "failed")


def fetch_statuses(readings: Sequence[Reading]) -> tuple[FetchStatus, ...]:
    return tuple(
        FetchStatus(
            r.fetch.file.name, r.fetch.tier, min(r.meter.done_bytes, r.fetch.file.size_bytes), r.fetch.file.size_bytes
        )
        for r in readings
    )


def planned_lora(need: Need, shelves: Shelves) -> PlannedLora:
    reference, file = need.reference, need.file
    return PlannedLora(
        name=reference.name,
        state=need.resolution.state,
        file="" if file is None else file.name,
        tier=tier_of(need, shelves.limits, shelves.no_room),
        size_bytes=0 if file is None else file.size_bytes,
        candidates=need.resolution.candidates,
        warm=shelves.state_of(need),
        strength_model=reference.strength_model,
        strength_clip=reference.strength_clip,
        node_id=reference.node_id,
        class_type=reference.class_type,
    )


def planned_unknown(unknown: UnknownReference) -> PlannedLora:
    return PlannedLora(
        "",
        "unknown",
        "",
        None,
        0,
        warm="unknown",
        node_id=unknown.node_id,
        class_type=unknown.class_type,
        reason=unknown.reason,
    )


def _adapters(job: JobNeeds, shelves: Shelves) -> Iterator[AdapterStatus]:
    for need in job.needs:
        file = need.file
        if file is None:
            problem = ", ".join(need.resolution.candidates)
            yield AdapterStatus(shown_name(need.reference.name), shelves.state_of(need), None, 0, problem)
        else:
            problem = file.problem or shelves.failed.get(file.key, "")
            tier = tier_of(need, shelves.limits, shelves.no_room)
            yield AdapterStatus(file.name, shelves.state_of(need), tier, file.size_bytes, problem)
    for unknown in job.references.unknown:
        yield AdapterStatus("", "unknown", None, 0, f"{unknown.class_type}: {unknown.reason}")
