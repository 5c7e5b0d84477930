"""How the resident budget answers the machine's memory: cut before the host has to swap, grown back when it is over."""

from __future__ import annotations

STEP_BYTES = 64 << 20
"""Smaller corrections are not worth an eviction."""


def next_limit_bytes(
    target_bytes: int, limit_bytes: int, used_bytes: int, available_bytes: int, headroom_bytes: int
) -> int:
    """The budget's next limit, between 0 and `target_bytes`.

    Short of headroom, what is used shrinks by what is missing. With twice the headroom free, the limit grows back by
    half of the surplus at a time, so that it does not swing. In between it stays.
    """
    missing_bytes = headroom_bytes - available_bytes
    if missing_bytes > 0:
        return max(0, min(limit_bytes, target_bytes, used_bytes - missing_bytes))
    surplus_bytes = available_bytes - 2 * headroom_bytes
    if limit_bytes < target_bytes and surplus_bytes > 0:
        return min(target_bytes, limit_bytes + max(STEP_BYTES, surplus_bytes // 2))
    return min(limit_bytes, target_bytes)


def page_budget_bytes(setting_bytes: int | None, available_bytes: int, headroom_bytes: int) -> int:
    """How much page cache may be filled ahead: never more than half of the memory that is free beyond headroom."""
    free_bytes = max(0, available_bytes - headroom_bytes) // 2
    return free_bytes if setting_bytes is None else min(setting_bytes, free_bytes)
