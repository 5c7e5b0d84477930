"""Front 2: diffusers. `LoRAWorker`, queues of requests, the command line. See docs/architecture.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loaders.lazy_names import lazy_names

if TYPE_CHECKING:
    from .application import Application as Application
    from .application import AppliedLora as AppliedLora
    from .application import WorkerStatus as WorkerStatus
    from .batch import Batch as Batch
    from .batch import run_batch as run_batch
    from .config import LoRAWorkerConfig as LoRAWorkerConfig
    from .errors import OffloadedError as OffloadedError
    from .errors import QuantisedError as QuantisedError
    from .errors import StackError as StackError
    from .errors import TargetError as TargetError
    from .errors import UnsupportedLoraError as UnsupportedLoraError
    from .errors import WrongModelError as WrongModelError
    from .lora_worker import LoRAWorker as LoRAWorker
    from .report import RequestReport as RequestReport
    from .report import RunReport as RunReport
    from .request import MalformedLine as MalformedLine
    from .request import QueueRequest as QueueRequest
    from .request import parse_queue as parse_queue
    from .request import read_queue as read_queue
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "application": "Application AppliedLora WorkerStatus",
            "batch": "Batch run_batch",
            "config": "LoRAWorkerConfig",
            "errors": "OffloadedError QuantisedError StackError TargetError UnsupportedLoraError WrongModelError",
            "lora_worker": "LoRAWorker",
            "report": "RequestReport RunReport",
            "request": "MalformedLine QueueRequest parse_queue read_queue",
        },
    )
