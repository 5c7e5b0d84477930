"""Whether there is such memory, and on which devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def init(**options: Any) -> bool:
    return True


def init_devices(devices: Iterable[Any]) -> bool:
    return bool(list(devices))


def analyze() -> None: ...


def __getattr__(name: str) -> Callable[[], None]:
    if name.startswith("set_log_"):
        return lambda: None
    raise AttributeError(name)
