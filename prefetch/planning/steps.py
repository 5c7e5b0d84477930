"""Steps: what the running job still has before it, told from how its steps go by."""

from __future__ import annotations

STRETCH_S = 2.0
"""Looks come up to a quarter of a second apart or right after each other: over so long it hardly matters which."""


class Steps:
    """How the steps of one piece of work go by. What the job does after them is not known: the rest is a lower bound,
    which makes fetches early and never late."""

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None
        self._whole_s: float | None = None
        """What all would take at the pace of the fastest stretch: a computer that slept has made another one long."""

    def observe(self, progress: float | None, now_s: float) -> None:
        if progress is None or (self._last is not None and progress < self._last[0]):
            self._since = self._last = self._whole_s = None
        if progress is not None and (self._last is None or progress > self._last[0]):
            self._last = progress, now_s
            if self._since is None:
                self._since = self._last
            elif now_s - self._since[1] >= STRETCH_S:
                whole_s = _whole_s(self._since, self._last)
                self._whole_s = whole_s if self._whole_s is None else min(self._whole_s, whole_s)
                self._since = self._last

    def left_s(self, now_s: float) -> float | None:
        """None before a second step has been seen."""
        if self._since is None or self._last is None:
            return None
        whole_s = self._whole_s
        if whole_s is None:
            if self._last[0] <= self._since[0]:
                return None
            whole_s = _whole_s(self._since, self._last)
        last, at_s = self._last
        return max((1.0 - last) * whole_s - (now_s - at_s), 0.0)


def _whole_s(since: tuple[float, float], until: tuple[float, float]) -> float:
    """Seconds from 0 to 1, if it goes on as from `since` to `until`, each (progress, seconds)."""
    return (until[1] - since[1]) / (until[0] - since[0])
