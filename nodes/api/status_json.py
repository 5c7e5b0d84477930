"""The status as JSON: one snapshot of everything, and a revision that grows when something in it has changed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ...loaders.tracking import StrategySummary
from ...lora.cache.cache_stats import AdapterView, CacheSnapshot
from ...lora.library.file import LoraFile
from ...prefetch.status import AdapterStatus, JobRecord, JobStatus, ModelStatus, PlannedLora, PrefetchStatus
from ..server.memory_state import MemoryState

SCHEMA = 1
MAX_ADAPTERS = 200
"""Rows of one status; the rest is counted, and GET .../adapters pages through all of them."""


class Moment(NamedTuple):
    """Everything that a status is made of, read at one time."""

    prefetch: PrefetchStatus
    cache: CacheSnapshot
    catalog_revision: int
    catalog_files: int
    settings: Mapping[str, bool | int | None]
    memory: MemoryState | None
    """None when the host could not tell."""
    now_s: float
    """By the clock of the cache."""
    loads: Mapping[str, StrategySummary] = MappingProxyType({})
    """Strategy -> what the model loaders did by it."""

    @property
    def fingerprint(self) -> object:
        """Equal as long as nothing has happened: memory and clocks, which always move, are left out."""
        settings = tuple(self.settings.items())
        loads = tuple(self.loads.items())
        return (
            self.prefetch.revision,
            self.cache.revision,
            self.cache.limit_bytes,
            self.catalog_revision,
            settings,
            loads,
        )


class Revision:
    """Counts the different fingerprints it was shown, so that a client can drop what is older. Thread-safe."""

    def __init__(self) -> None:
        self.boot = uuid.uuid4().hex
        """Another one after each restart: revisions of two boots do not compare."""
        self._lock = threading.Lock()
        self._fingerprint: object = None
        self._count = 0

    def observe(self, fingerprint: object) -> int:
        with self._lock:
            if fingerprint != self._fingerprint:
                self._fingerprint = fingerprint
                self._count += 1
            return self._count


def status_json(moment: Moment, boot: str, revision: int, file_of: Callable[[str], LoraFile | None]) -> dict[str, Any]:
    """`file_of` finds a catalog entry by its name, for category and base model."""
    cache, prefetch = moment.cache, moment.prefetch
    return {
        "schema": SCHEMA,
        "boot": boot,
        "revision": revision,
        "prefetch": prefetch.as_json(),
        "budget": {
            "limit_bytes": cache.limit_bytes,
            "used_bytes": cache.used_bytes,
            "peak_bytes": cache.peak_bytes,
            "spare_bytes": cache.spare_bytes,
        },
        "adapters": [_adapter_json(view, moment.now_s, file_of(view.name)) for view in _shown(cache.adapters)],
        "adapters_total": len(cache.adapters),
        "evictions": dict(cache.stats.evictions),
        "remembered_failures": cache.stats.failures,
        "queue": [_job_json(job) for job in prefetch.queue],
        "history": [_record_json(record, moment.now_s) for record in prefetch.history],
        "memory": _memory_json(moment.memory),
        "catalog": {"files": moment.catalog_files, "revision": moment.catalog_revision},
        "settings": dict(moment.settings),
        "loads": {strategy: summary._asdict() for strategy, summary in moment.loads.items()},
    }


def plan_json(planned: Iterable[PlannedLora]) -> dict[str, Any]:
    """`{loras, unknown}`: what a prompt names, and the nodes of which only a run can tell."""
    loras, unknown = [], []
    for lora in planned:
        if lora.state == "unknown":
            unknown.append({"node_id": lora.node_id, "class_type": lora.class_type, "reason": lora.reason})
        else:
            loras.append(_planned_json(lora))
    return {"loras": loras, "unknown": unknown}


def _planned_json(lora: PlannedLora) -> dict[str, Any]:
    row = {key: value for key, value in lora._asdict().items() if key not in ("size_bytes", "reason")}
    return {**row, "bytes": lora.size_bytes, "candidates": list(lora.candidates)}


def _adapter_json(view: AdapterView, now_s: float, file: LoraFile | None) -> dict[str, Any]:
    return {
        "name": view.name,
        "bytes": view.nbytes,
        "state": view.state,
        "storage": view.storage,
        "pinned": view.pinned,
        "leases": view.leases,
        "hits": view.hits,
        "idle_s": None if view.last_used_s is None else round(max(0.0, now_s - view.last_used_s), 3),
        "next_use": view.next_use,
        "category": file.category if file else "",
        "base_model": file.base_model if file else "",
        "problem": view.problem,
    }


def _shown(adapters: Iterable[AdapterView]) -> list[AdapterView]:
    """Those that somebody waits for or will use next come first."""
    last = 1 << 60
    ranked = sorted(adapters, key=lambda v: (v.state != "loading", last if v.next_use is None else v.next_use, v.name))
    return ranked[:MAX_ADAPTERS]


def _job_json(job: JobStatus) -> dict[str, Any]:
    adapters = [_job_adapter_json(adapter) for adapter in job.adapters]
    models = [_job_model_json(model) for model in job.models]
    return {"job_id": job.job_id, "running": job.running, "adapters": adapters, "models": models}


def _record_json(record: JobRecord, now_s: float) -> dict[str, Any]:
    row = {key: value for key, value in record._asdict().items() if key != "finished_s"}
    return {**row, "ago_s": round(max(0.0, now_s - record.finished_s), 3)}


def _job_adapter_json(adapter: AdapterStatus) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "file": adapter.name,
        "state": adapter.state,
        "tier": adapter.tier,
        "bytes": adapter.size_bytes,
        "reason": adapter.problem,
    }


def _job_model_json(model: ModelStatus) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "state": model.state,
        "bytes": model.size_bytes,
        "reason": model.problem,
    }


def _memory_json(memory: MemoryState | None) -> dict[str, Any]:
    if memory is None:
        return {}
    return {
        "total_bytes": memory.total_bytes,
        "available_bytes": memory.available_bytes,
        "page_cache_bytes": memory.page_cache_bytes,
        "headroom_bytes": memory.headroom_bytes,
        "devices": [device._asdict() for device in memory.devices],
    }
