"""Front 2: diffusers. `LoRAWorker`, queues of requests, the command line. See docs/architecture.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .application import Application, AppliedLora, WorkerStatus
    from .batch import Batch, run_batch
    from .config import LoRAWorkerConfig
    from .errors import OffloadedError, QuantisedError, StackError, TargetError, UnsupportedLoraError, WrongModelError
    from .lora_worker import LoRAWorker
    from .report import RequestReport, RunReport
    from .request import MalformedLine, QueueRequest, parse_queue, read_queue

_HOMES = {
    "Application": "application",
    "AppliedLora": "application",
    "Batch": "batch",
    "LoRAWorker": "lora_worker",
    "LoRAWorkerConfig": "config",
    "MalformedLine": "request",
    "OffloadedError": "errors",
    "QuantisedError": "errors",
    "QueueRequest": "request",
    "RequestReport": "report",
    "RunReport": "report",
    "StackError": "errors",
    "TargetError": "errors",
    "UnsupportedLoraError": "errors",
    "WorkerStatus": "application",
    "WrongModelError": "errors",
    "parse_queue": "request",
    "read_queue": "request",
    "run_batch": "batch",
}

__all__ = [
    "Application",
    "AppliedLora",
    "Batch",
    "LoRAWorker",
    "LoRAWorkerConfig",
    "MalformedLine",
    "OffloadedError",
    "QuantisedError",
    "QueueRequest",
    "RequestReport",
    "RunReport",
    "StackError",
    "TargetError",
    "UnsupportedLoraError",
    "WorkerStatus",
    "WrongModelError",
    "parse_queue",
    "read_queue",
    "run_batch",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
