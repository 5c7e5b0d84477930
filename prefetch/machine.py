"""Machine: what the prefetcher asks of the computer it runs on, and of the job there; tests bring their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..loaders.cancelling import Cancelled
from ..loaders.memory import host_memory
from ..loaders.system import disk_kind, disk_probe, page_cache
from ..loaders.system.daemon_pool import DaemonPool
from ..loaders.system.rate_limit import RateLimit
from .disks import disk_use
from .pool import Pool


class WarmFile(Protocol):
    """`loaders.page_cache.warm_file`."""

    def __call__(
        self, path: str | os.PathLike[str], *, cancelled: Cancelled, limiter: RateLimit | None = None
    ) -> int: ...


class Probe(Protocol):
    """`loaders.disk_probe.probe_rates`."""

    def __call__(self, paths: Sequence[str], *, cancelled: Cancelled) -> tuple[float, ...]: ...


def unknown_progress() -> float | None:
    """The progress of a host that does not tell."""
    return None


def default_headroom_bytes() -> int:
    """What stays available beside nobody who needs more."""
    return 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """The real one by default."""

    warm_file: WarmFile = page_cache.warm_file
    resident_bytes: Callable[[str], int | None] = page_cache.resident_bytes
    available_bytes: Callable[[], int] = host_memory.available_bytes
    clock: Callable[[], float] = time.monotonic
    make_pool: Callable[[int, str], Pool] = DaemonPool
    disk_under: Callable[[str], disk_kind.Disk] = disk_kind.disk_under
    probe: Probe = disk_probe.probe_rates
    foreign_read_bytes: Callable[[], int | None] = disk_use.foreign_read_bytes
    """What this process has read from disks so far, less what our readers have; None where nobody counts."""
    headroom_bytes: Callable[[], int] = default_headroom_bytes
    """Memory that stays available when no setting says how much; asked again at each look. In a thread."""
    state_folder: Path | None = None
    """Where what was measured of this machine outlives a restart; None: nowhere."""
    progress: Callable[[], float | None] = unknown_progress
    """How far the running job is in what it does step by step now, 0 to 1; None when nobody can tell. Called on the
    loop."""
