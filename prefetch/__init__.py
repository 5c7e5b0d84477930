"""Reads the queue ahead and warms the adapters that its jobs name. See docs/architecture.md.

Names are imported on first use, so that planning never pays for torch. The function `references` is imported from its
module: a package attribute of that name would be the module or the function, whichever was imported last.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .device_status import DeviceStatus
    from .models.file import ModelFile, ModelFinder
    from .planning.horizon import make_plan
    from .planning.plan import Fetch, Limits, Plan, Warm
    from .planning.predictor import LoRAPrefetchPredictor, PredictorStats
    from .prefetcher import Prefetcher
    from .queue.job import LoraReference, ModelReference, QueuedJob, References, UnknownReference
    from .references.prompt import payload_references
    from .references.texts import stack_references
    from .reports.prometheus import prometheus_text
    from .settings import PrefetchSettings
    from .status import (
        AdapterStatus,
        FetchStatus,
        JobRecord,
        JobStatus,
        ModelStatus,
        PlannedLora,
        PrefetchStatus,
    )

_HOMES = {
    "AdapterStatus": "status",
    "DeviceStatus": "device_status",
    "Fetch": "planning.plan",
    "FetchStatus": "status",
    "JobRecord": "status",
    "JobStatus": "status",
    "Limits": "planning.plan",
    "LoRAPrefetchPredictor": "planning.predictor",
    "LoraReference": "queue.job",
    "ModelFile": "models.file",
    "ModelFinder": "models.file",
    "ModelReference": "queue.job",
    "ModelStatus": "status",
    "Plan": "planning.plan",
    "PredictorStats": "planning.predictor",
    "prometheus_text": "reports.prometheus",
    "PlannedLora": "status",
    "PrefetchSettings": "settings",
    "PrefetchStatus": "status",
    "Prefetcher": "prefetcher",
    "QueuedJob": "queue.job",
    "References": "queue.job",
    "UnknownReference": "queue.job",
    "Warm": "planning.plan",
    "payload_references": "references.prompt",
    "make_plan": "planning.horizon",
    "stack_references": "references.texts",
}

__all__ = [
    "AdapterStatus",
    "DeviceStatus",
    "Fetch",
    "FetchStatus",
    "JobRecord",
    "JobStatus",
    "Limits",
    "LoRAPrefetchPredictor",
    "LoraReference",
    "ModelFile",
    "ModelFinder",
    "ModelReference",
    "ModelStatus",
    "Plan",
    "PlannedLora",
    "PredictorStats",
    "PrefetchSettings",
    "PrefetchStatus",
    "Prefetcher",
    "QueuedJob",
    "References",
    "UnknownReference",
    "Warm",
    "make_plan",
    "payload_references",
    "prometheus_text",
    "stack_references",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
