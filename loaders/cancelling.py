"""Cancelled: how a caller stops work that is under way."""

from __future__ import annotations

from collections.abc import Callable

Cancelled = Callable[[], bool]
"""Asked between any two steps, from any thread of the work, which ends once the answer is true."""


def never() -> bool:
    """Of a caller who gave none."""
    return False
