"""Reads the queue ahead and warms the adapters that its jobs name. See docs/architecture.md.

Names are imported on first use, so that planning never pays for torch. The function `references` is imported from its
module: a package attribute of that name would be the module or the function, whichever was imported last.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .device_status import DeviceStatus
    from .horizon import make_plan
    from .job import LoraReference, ModelReference, QueuedJob, References, UnknownReference
    from .model_file import ModelFile, ModelFinder
    from .plan import Fetch, Limits, Plan, Warm
    from .predictor import LoRAPrefetchPredictor, PredictorStats
    from .prefetcher import Prefetcher
    from .prometheus import prometheus_text
    from .references import payload_references
    from .settings import PrefetchSettings, parse_bytes
    from .status import AdapterStatus, FetchStatus, JobRecord, JobStatus, ModelStatus, PlannedLora, PrefetchStatus
    from .texts import stack_references

_HOMES = {
    "AdapterStatus": "status",
    "DeviceStatus": "device_status",
    "Fetch": "plan",
    "FetchStatus": "status",
    "JobRecord": "status",
    "JobStatus": "status",
    "Limits": "plan",
    "LoRAPrefetchPredictor": "predictor",
    "LoraReference": "job",
    "ModelFile": "model_file",
    "ModelFinder": "model_file",
    "ModelReference": "job",
    "ModelStatus": "status",
    "Plan": "plan",
    "PredictorStats": "predictor",
    "prometheus_text": "prometheus",
    "PlannedLora": "status",
    "PrefetchSettings": "settings",
    "PrefetchStatus": "status",
    "Prefetcher": "prefetcher",
    "QueuedJob": "job",
    "References": "job",
    "UnknownReference": "job",
    "Warm": "plan",
    "parse_bytes": "settings",
    "payload_references": "references",
    "make_plan": "horizon",
    "stack_references": "texts",
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
    "parse_bytes",
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
