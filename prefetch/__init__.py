"""Reads the queue ahead and warms the adapters that its jobs name. See docs/architecture.md.

Names are imported on first use, so that planning never pays for torch. The function `references` is imported from its
module: a package attribute of that name would be the module or the function, whichever was imported last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loaders.lazy_names import lazy_names

if TYPE_CHECKING:
    from .device_status import DeviceStatus as DeviceStatus
    from .models.file import ModelFile as ModelFile
    from .models.file import ModelFinder as ModelFinder
    from .planning.horizon import make_plan as make_plan
    from .planning.plan import Fetch as Fetch
    from .planning.plan import Limits as Limits
    from .planning.plan import Plan as Plan
    from .planning.plan import Warm as Warm
    from .planning.predictor import LoRAPrefetchPredictor as LoRAPrefetchPredictor
    from .planning.predictor import PredictorStats as PredictorStats
    from .prefetcher import Prefetcher as Prefetcher
    from .queue.job import LoraReference as LoraReference
    from .queue.job import ModelReference as ModelReference
    from .queue.job import QueuedJob as QueuedJob
    from .queue.job import References as References
    from .queue.job import UnknownReference as UnknownReference
    from .references.prompt import payload_references as payload_references
    from .references.texts import stack_references as stack_references
    from .reports.prometheus import prometheus_text as prometheus_text
    from .settings import PrefetchSettings as PrefetchSettings
    from .status import AdapterStatus as AdapterStatus
    from .status import FetchStatus as FetchStatus
    from .status import JobRecord as JobRecord
    from .status import JobStatus as JobStatus
    from .status import ModelStatus as ModelStatus
    from .status import PlannedLora as PlannedLora
    from .status import PrefetchStatus as PrefetchStatus
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "device_status": "DeviceStatus",
            "models.file": "ModelFile ModelFinder",
            "planning.horizon": "make_plan",
            "planning.plan": "Fetch Limits Plan Warm",
            "planning.predictor": "LoRAPrefetchPredictor PredictorStats",
            "prefetcher": "Prefetcher",
            "queue.job": "LoraReference ModelReference QueuedJob References UnknownReference",
            "references.prompt": "payload_references",
            "references.texts": "stack_references",
            "reports.prometheus": "prometheus_text",
            "settings": "PrefetchSettings",
            "status": "AdapterStatus FetchStatus JobRecord JobStatus ModelStatus PlannedLora PrefetchStatus",
        },
    )
