"""PrefetchSnapshot: the prefetcher's state at one moment, and what a status shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import TYPE_CHECKING, NamedTuple

from ...lora.library.file import AdapterKey
from ..models.view import ModelSnapshot
from ..planning.predictor import PredictorStats
from ..queue.job import UnknownReference
from ..queue.need import JobNeeds, Need, shown_name
from ..reading.reading import Reading
from ..reading.whereabouts import Whereabouts
from ..status import (
    AdapterStatus,
    FetchStatus,
    JobRecord,
    JobStatus,
    PageStatus,
    PlannedLora,
    PrefetchStatus,
)

if TYPE_CHECKING:
    from ...lora.cache.cache_stats import CacheSnapshot


class PrefetchSnapshot(NamedTuple):
    """Immutable, and equal to another when nothing that a status shows has changed."""

    enabled: bool = True
    jobs: tuple[JobNeeds, ...] = ()
    queued_jobs: int = 0
    whereabouts: Whereabouts = Whereabouts()
    in_flight: tuple[FetchStatus, ...] = ()
    page: PageStatus = PageStatus()
    predictor: PredictorStats = PredictorStats(0, 0, False)
    under_pressure: bool = False
    history: tuple[JobRecord, ...] = ()
    paused: str = ""
    models: ModelSnapshot = ModelSnapshot()

    def status(self, revision: int, cached: CacheSnapshot) -> PrefetchStatus:
        """Joined with the cache's numbers of this moment. Both revisions only grow, and so does their sum."""
        stats = cached.stats
        named = frozenset[AdapterKey]().union(*(job.keys for job in self.jobs))
        whereabouts = self.whereabouts._replace(resident=resident_keys(cached, named))
        models = self.models.of_jobs()
        return PrefetchStatus(
            revision=revision + cached.revision,
            enabled=self.enabled,
            hits=stats.hits,
            joins=stats.joins,
            misses=stats.misses,
            wait_s=stats.wait_s,
            load_s=stats.load_s,
            hidden_share=stats.hidden_share,
            wasted_bytes=stats.wasted_bytes + self.page.wasted_bytes,
            page=self.page,
            predictor=self.predictor,
            under_pressure=self.under_pressure,
            in_flight=(*self.in_flight, *self.models.in_flight),
            queued_jobs=self.queued_jobs,
            queue=tuple(
                JobStatus(
                    needs.job.job_id,
                    needs.job.running,
                    tuple(_adapters(needs, whereabouts)),
                    models.get(needs.job.key, ()),
                )
                for needs in self.jobs
            ),
            history=self.history,
            paused=self.paused,
            models=self.models.page,
            waits=stats.waits,
            demand_bytes=stats.demand_bytes,
            read_bytes=stats.read_bytes,
            prefetched_bytes=stats.prefetched_bytes,
            pollution=stats.pollution,
        )


def resident_keys(cached: CacheSnapshot, named: Set[AdapterKey] = frozenset()) -> frozenset[AdapterKey]:
    """Keys that a plan may treat as loaded: ready adapters, and those that a job is waiting for. Our own unfinished
    reads are excluded, else the plan would drop them to the end. Also included: keys in `named` of an older version of
    a resident file, because a slow disk may keep the queue on an old stat."""
    resident = frozenset(view.key for view in cached.adapters if view.state == "ready" or view.waiting)
    others = named - resident
    if not others:
        return resident
    written_ns: dict[str, int] = {}
    for key in resident:
        written_ns[key.path] = max(key.mtime_ns, written_ns.get(key.path, key.mtime_ns))
    return resident.union(key for key in others if key.mtime_ns <= written_ns.get(key.path, key.mtime_ns - 1))


def fetch_status(reading: Reading) -> FetchStatus:
    file = reading.fetch.file
    return FetchStatus(file.name, reading.fetch.tier, min(reading.gate.done_bytes, file.size_bytes), file.size_bytes)


def planned_loras(
    needs: Iterable[Need], unknown: Iterable[UnknownReference], whereabouts: Whereabouts
) -> list[PlannedLora]:
    """`needs`, then what only a run can tell."""
    return [_planned(need, whereabouts) for need in needs] + [_planned_unknown(reference) for reference in unknown]


def _planned(need: Need, whereabouts: Whereabouts) -> PlannedLora:
    reference, file = need.reference, need.file
    return PlannedLora(
        name=reference.name,
        state=need.resolution.state,
        file="" if file is None else file.name,
        tier=whereabouts.tier_of(need),
        size_bytes=0 if file is None else file.size_bytes,
        candidates=need.resolution.candidates,
        warm=whereabouts.state_of(need),
        strength_model=reference.strength_model,
        strength_clip=reference.strength_clip,
        node_id=reference.node_id,
        class_type=reference.class_type,
    )


def _planned_unknown(unknown: UnknownReference) -> PlannedLora:
    return PlannedLora(
        name="",
        state="unknown",
        file="",
        tier=None,
        size_bytes=0,
        warm="unknown",
        node_id=unknown.node_id,
        class_type=unknown.class_type,
        reason=unknown.reason,
    )


def _adapters(job: JobNeeds, whereabouts: Whereabouts) -> Iterator[AdapterStatus]:
    for need in job.needs:
        file, key = need.file, need.key
        if file is None or key is None:
            problem = ", ".join(need.resolution.candidates)
            yield AdapterStatus(shown_name(need.reference.name), whereabouts.state_of(need), None, 0, problem)
        else:
            state = whereabouts.state_of(need)
            problem = file.problem or whereabouts.failed.get(key, "") if state == "failed" else ""
            yield AdapterStatus(file.name, state, whereabouts.tier_of(need), file.size_bytes, problem)
    for unknown in job.references.unknown:
        yield AdapterStatus("", "unknown", None, 0, f"{unknown.class_type}: {unknown.reason}")
