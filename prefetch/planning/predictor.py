"""LoRAPrefetchPredictor: which LoRAs the next, not yet queued job will probably use, learned from the jobs that ran."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

MAX_NAMES = 512
"""Names remembered; the least used are forgotten."""
DECAY = 0.97
"""Weight that a use keeps per later job: a LoRA of forty jobs ago counts a third."""
FOLLOWED_WEIGHT = 2.0
"""How much more "came right after this stack" says than "is used often"."""
TOGETHER_WEIGHT = 1.0
"""The same of "was used in one job with these"."""
WITHIN_JOBS = 3
"""A guess is right when one of the next jobs uses the LoRA."""
JUDGED = 8
"""Guesses per job that are judged, each by its rank: what the third best is worth, the second does not tell."""
LEAST_CHECKED = 20
REMEMBERED_VERDICTS = 100
HIT_RATE_FLOOR = 0.2
"""Guesses of a rank are acted upon while at least this share of them comes true."""


class PredictorStats(NamedTuple):
    """How good the guesses beyond the current stack were: of those that are acted upon, or of the best when none is."""

    checked: int
    hits: int
    active: bool
    """False while too few were right: nothing is read on its word until it has become better."""
    reach: int = 0
    """How many guesses per job are acted upon: the best, as long as those of their rank came true."""

    @property
    def hit_rate(self) -> float | None:
        return self.hits / self.checked if self.checked else None


class LoRAPrefetchPredictor:
    """Not thread-safe. Goes on judging itself while it is inactive, so that it comes back when habits settle."""

    def __init__(self, *, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._weights: dict[str, float] = {}
        self._unit = 1.0
        self._followers = _Links()
        self._partners = _Links()
        self._current: tuple[str, ...] = ()
        self._pending: deque[_Guess] = deque()
        self._verdicts = [deque[bool](maxlen=REMEMBERED_VERDICTS) for _ in range(JUDGED)]
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
            self._partners.count(name, (other for other in stack if other != name))
        for before in self._current:
            self._followers.count(before, (name for name in stack if name not in self._current))
        self._current = stack
        self._forget()
        guesses = self._beyond(stack, JUDGED)
        self._pending.extend(_Guess(self._jobs, rank, name) for rank, name in enumerate(guesses))

    def predict_next_loras(self, current: Sequence[str] | None = None, limit: int = 8) -> list[str]:
        """Most probable first: the current stack goes on, then what used to follow it or to be used with it, then what
        is used most and last.

        `current` defaults to the last recorded stack. Beyond it only as many names are given as their rank has earned.
        """
        stack = tuple(dict.fromkeys(self._current if current is None else current))
        return [*stack, *self._beyond(stack, min(limit, self._reach()))][:limit]

    def stats(self) -> PredictorStats:
        """How the guesses that came out have fared, and whether any are acted upon."""
        reach = self._reach()
        verdicts = [verdict for rank in self._verdicts[: max(reach, 1)] for verdict in rank]
        return PredictorStats(len(verdicts), sum(verdicts), reach > 0, reach)

    def _reach(self) -> int:
        return sum(1 for _ in takewhile(self._is_good, self._verdicts))

    def _is_good(self, verdicts: deque[bool]) -> bool:
        return len(verdicts) >= LEAST_CHECKED and sum(verdicts) >= HIT_RATE_FLOOR * len(verdicts)

    def _beyond(self, stack: Sequence[str], limit: int) -> list[str]:
        """The best names that are not in `stack`, best first."""
        total_weight = sum(self._weights.values())
        scores = {name: weight / total_weight for name, weight in self._weights.items() if name not in stack}
        for links, weight in ((self._followers, FOLLOWED_WEIGHT), (self._partners, TOGETHER_WEIGHT)):
            for name, share in links.shares(stack):
                if name in scores:
                    scores[name] += weight * share
        return heapq.nsmallest(limit, scores, key=lambda name: (-scores[name], name))

    def _judge(self, stack: Sequence[str]) -> None:
        waiting: deque[_Guess] = deque()
        for guess in self._pending:
            if guess.name in stack:
                self._verdicts[guess.rank].append(True)
            elif self._jobs - guess.made_at >= WITHIN_JOBS:
                self._verdicts[guess.rank].append(False)
            else:
                waiting.append(guess)
        self._pending = waiting

    def _forget(self) -> None:
        if len(self._weights) > self._max_names:
            kept = set(sorted(self._weights, key=lambda name: -self._weights[name])[: self._max_names // 2])
            self._weights = {name: weight for name, weight in self._weights.items() if name in kept}
            self._followers.keep(kept)
            self._partners.keep(kept)
        if self._unit > 1e100:
            self._weights = {name: weight / self._unit for name, weight in self._weights.items()}
            self._unit = 1.0


class _Guess(NamedTuple):
    made_at: int
    """Number of the job after which it was made."""
    rank: int
    name: str


class _Links:
    """How often one name led to another."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._counts.values()))

    def count(self, name: str, others: Iterable[str]) -> None:
        self._counts.setdefault(name, Counter()).update(others)

    def shares(self, names: Iterable[str]) -> Iterator[tuple[str, float]]:
        """Each name that one of `names` led to, with the share of the times."""
        for name in names:
            counts = self._counts.get(name, Counter())
            total = sum(counts.values())
            yield from ((other, count / total) for other, count in counts.items())

    def keep(self, kept: Container[str]) -> None:
        self._counts = {
            name: Counter({other: count for other, count in counts.items() if other in kept})
            for name, counts in self._counts.items()
            if name in kept
        }
