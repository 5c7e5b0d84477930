"""What the state machine of the prefetcher chooses from."""

from __future__ import annotations

from hypothesis import strategies as st

from .world import CHUNK_BYTES

NAMES = tuple(f"lora{i}" for i in range(6))
BUDGET_BYTES = 14 * CHUNK_BYTES
PLENTY_BYTES = 1 << 40

Job = tuple[list[str], bool]
"""LoRAs as a graph names them, and whether our own loader reads them."""

JOBS = st.tuples(
    st.lists(st.sampled_from([*NAMES, *NAMES, "absent", "old.pt", "../outside/secret"]), min_size=1, max_size=3),
    st.booleans(),
)
names = st.sampled_from(NAMES)

CHANGES: tuple[dict[str, object], ...] = (
    {},
    {},
    {"enabled": False},
    {"budget_bytes": 0},
    {"budget_bytes": 5 * CHUNK_BYTES},
    {"budget_bytes": 20 * CHUNK_BYTES},
    {"page_budget_bytes": 8 * CHUNK_BYTES},
    {"concurrency": 1},
    {"concurrency": 3},
    {"depth_jobs": 0},
    {"depth_jobs": 1},
    {"page_tier": False},
    {"resident_tier": False},
    {"predict": True},
    {"just_in_time": False},
    {"yield_to_job": False},
)
"""Settings as a person changes them: one at a time, and back."""
