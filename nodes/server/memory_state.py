"""MemoryState: the machine's memory at one moment."""

from __future__ import annotations

from typing import NamedTuple


class DeviceMemory(NamedTuple):
    """Memory of one accelerator, as the host accounts for it."""

    name: str
    total_bytes: int
    free_bytes: int


class MemoryState(NamedTuple):
    """RAM and devices. `headroom_bytes` is what the host wants to stay available; below it the host starts to drop
    its own caches."""

    total_bytes: int
    available_bytes: int
    page_cache_bytes: int | None
    """None where the system does not say."""
    headroom_bytes: int
    devices: tuple[DeviceMemory, ...] = ()
