"""LoRAPrefetchPredictor: which LoRAs the next, not yet queued job will probably use, learned from the jobs that ran."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_NAMES = 512
"""Names remembered; the least used are forgotten."""
DECAY = 0.97
"""Weight that a use keeps per later job: a LoRA of forty jobs ago counts a third."""
FOLLOWED_WEIGHT = 2.0
"""How much more "came right after this stack" says than "is used often"."""
WITHIN_JOBS = 3
"""A prediction is right when one of the next jobs uses the LoRA."""
JUDGED = 3
"""Predictions per job that count for the verdict: the best ones."""
LEAST_CHECKED = 20
HIT_RATE_FLOOR = 0.2


class PredictorStats(NamedTuple):
    """How good the predictions of LoRAs beyond the current stack were."""

    checked: int
    hits: int
    active: bool
    """False while too few were right: nothing is read on its word until it has become better."""

    @property
    def hit_rate(self) -> float | None:
        return self.hits / self.checked if self.checked else None


class LoRAPrefetchPredictor:
    """Not thread-safe. Goes on judging itself while it is inactive, so that it comes back when habits settle."""

    def __init__(self, *, hit_rate_floor: float = HIT_RATE_FLOOR, max_names: int = MAX_NAMES) -> None:
        self._floor = hit_rate_floor
        self._max_names = max_names
        self._weights: dict[str, float] = {}
        self._unit = 1.0
        self._followers: dict[str, Counter[str]] = {}
        self._current: tuple[str, ...] = ()
        self._pending: deque[tuple[int, str]] = deque()
        self._verdicts: deque[bool] = deque(maxlen=5 * LEAST_CHECKED)
        self._jobs = 0

    def learn(self, history: Iterable[Sequence[str]]) -> None:
        """Stacks of past jobs, oldest first."""
        for names in history:
            self.record(names)

    def record(self, names: Sequence[str]) -> None:
        """A job with these LoRAs has started."""
        stack = tuple(dict.fromkeys(names))
        if not stack:
            return
        self._jobs += 1
        self._judge(stack)
        # One growing unit instead of decaying every weight at every job.
        self._unit /= DECAY
        for name in stack:
            self._weights[name] = self._weights.get(name, 0.0) + self._unit
        for before in self._current:
            followers = self._followers.setdefault(before, Counter())
            followers.update(name for name in stack if name not in self._current)
        self._current = stack
        self._forget()
        self._pending.extend((self._jobs, name) for name in self._beyond(stack, JUDGED))

    def predict_next_loras(self, current: Sequence[str] | None = None, limit: int = 8) -> list[str]:
        """Most probable first: the current stack goes on, then what used to follow it, then what is used most and last.

        `current` defaults to the last recorded stack. Beyond it nothing is predicted while the predictor is inactive.
        """
        stack = tuple(dict.fromkeys(self._current if current is None else current))
        beyond = self._beyond(stack, limit) if self.stats().active else []
        return [*stack, *beyond][:limit]

    def stats(self) -> PredictorStats:
        checked, hits = len(self._verdicts), sum(self._verdicts)
        return PredictorStats(checked, hits, checked >= LEAST_CHECKED and hits >= self._floor * checked)

    def _beyond(self, stack: Sequence[str], limit: int) -> list[str]:
        """The best names that are not in `stack`, best first."""
        total_weight = sum(self._weights.values())
        scores = {name: weight / total_weight for name, weight in self._weights.items() if name not in stack}
        for name in stack:
            followers = self._followers.get(name, Counter())
            total = sum(followers.values())
            for follower, count in followers.items():
                if follower in scores:
                    scores[follower] += FOLLOWED_WEIGHT * count / total
        return heapq.nsmallest(limit, scores, key=lambda name: (-scores[name], name))

    def _judge(self, stack: Sequence[str]) -> None:
        waiting: deque[tuple[int, str]] = deque()
        for made_at, name in self._pending:
            if name in stack:
                self._verdicts.append(True)
            elif self._jobs - made_at >= WITHIN_JOBS:
                self._verdicts.append(False)
            else:
                waiting.append((made_at, name))
        self._pending = waiting

    def _forget(self) -> None:
        if len(self._weights) > self._max_names:
            kept = set(sorted(self._weights, key=lambda name: -self._weights[name])[: self._max_names // 2])
            self._weights = {name: weight for name, weight in self._weights.items() if name in kept}
            self._followers = {
                name: Counter({follower: count for follower, count in found.items() if follower in kept})
                for name, found in self._followers.items()
                if name in kept
            }
        if self._unit > 1e100:
            self._weights = {name: weight / self._unit for name, weight in self._weights.items()}
            self._unit = 1.0
