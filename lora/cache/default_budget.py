"""How much memory to cache adapters in."""

from __future__ import annotations

from ...loaders.memory.host_memory import Memory, measure_memory

_GIB = 1 << 30
_MOST_BYTES = 8 * _GIB
"""Some 40 SDXL LoRAs: more of them resident gains little, since the queue tells which will be needed."""
_HEADROOM_BYTES = 2 * _GIB
"""What a default must leave available; on small machines an eighth of the memory."""


def default_budget_bytes() -> int:
    """A quarter of the memory, at most 8 GiB, and less when that would not leave enough available."""
    return budget_for(measure_memory())


def budget_for(memory: Memory) -> int:
    headroom_bytes = min(_HEADROOM_BYTES, memory.total_bytes // 8)
    spare_bytes = max(0, memory.available_bytes - headroom_bytes)
    return min(memory.total_bytes // 4, _MOST_BYTES, spare_bytes)
