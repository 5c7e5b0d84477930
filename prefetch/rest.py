"""Rest: how long to leave a disk alone, so that bad sectors and slow shares take a small part of the time."""

from __future__ import annotations

REST_SHARE = 20
"""So many times as long as a try took nothing is tried."""
LONGEST_REST_S = 480.0
"""Whatever it took: a drive that has come back is not left alone for hours."""


def rest_s(least_s: float, took_s: float) -> float:
    """From one try to the next."""
    return min(max(least_s, REST_SHARE * took_s), LONGEST_REST_S)
