"""A lane: a thread that reads one file after the other, without the event loop in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from .reading import Outcome, Reading

T = TypeVar("T")


class Ended(NamedTuple):
    """One read of a lane has ended."""

    reading: Reading
    outcome: Outcome
    follower: Reading | None
    """What the same thread reads now; None when it has given itself back."""


def read_on(
    first: Reading, ahead: deque[Reading], read: Callable[[Reading], Outcome], ended: Callable[[Ended], None]
) -> None:
    """Reads `first`, then what others append to `ahead` and do not take back, until nothing is left there.

    For a thread; several may share `ahead`. Where the cache has no room it ends at once: somebody has to think first.
    """
    reading: Reading | None = first
    while reading is not None:
        outcome = _read(reading, read)
        follower = None if outcome.state == "no_room" else taken(ahead.popleft)
        ended(Ended(reading, outcome, follower))
        reading = follower


def _read(reading: Reading, read: Callable[[Reading], Outcome]) -> Outcome:
    try:
        return read(reading)
    except BaseException as error:  # whatever it is: without an end, the file would be shown as loading for ever
        return Outcome("failed", problem=type(error).__name__)


def taken(take: Callable[[], T]) -> T | None:
    """The next of a deque that threads share; None when nothing is left."""
    try:
        return take()
    except IndexError:  # asking for its length first would let another thread come between
        return None
