"""Machine: what the prefetcher asks of the computer it runs on, so that tests can bring their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..loaders import page_cache
from ..loaders.rate_limit import RateLimit
from ..lora import memory
from .pool import DaemonPool, Pool


class WarmFile(Protocol):
    """`loaders.page_cache.warm_file`."""

    def __call__(
        self, path: str | os.PathLike[str], *, cancelled: Callable[[], bool], limiter: RateLimit | None = None
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """The real one by default."""

    warm_file: WarmFile = page_cache.warm_file
    resident_bytes: Callable[[str], int | None] = page_cache.resident_bytes
    available_bytes: Callable[[], int] = memory.available_bytes
    clock: Callable[[], float] = time.monotonic
    make_pool: Callable[[int, str], Pool] = DaemonPool
