"""Steps: what the running job still has before it, told from how its steps go by."""

from __future__ import annotations


class Steps:
    """How the steps of one piece of work go by. What the job does after them is not known: the rest is a lower bound,
    which makes fetches early and never late."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None

    def observe(self, progress: float | None, now_s: float) -> None:
        if progress is None or (self._last is not None and progress < self._last[0]):
            self._first = self._last = None
        if progress is not None and (self._last is None or progress > self._last[0]):
            self._last = progress, now_s
            self._first = self._first or self._last

    def left_s(self, now_s: float) -> float | None:
        """None before a second step has been seen."""
        if self._first is None or self._last is None or self._last[0] <= self._first[0]:
            return None
        (first, started_s), (last, at_s) = self._first, self._last
        step_s = (at_s - started_s) / (last - first)
        return max((1.0 - last) * step_s - (now_s - at_s), 0.0)
