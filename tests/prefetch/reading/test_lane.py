"""A lane: one file after the other, each end told at once, and nothing that was taken back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest

from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.reading.lane import Ended, read_on
from warmstack.prefetch.reading.reading import Outcome, Reading

DEADLINE_S = 20.0


def reading(name: str) -> Reading:
    return Reading(Fetch(LoraFile(name, f"/{name}", 1, 0), "page", 0), lambda: None)


def told(first: str, ahead: deque[Reading], read: Callable[[Reading], Outcome]) -> list[tuple[str, str, str | None]]:
    """What a lane tells: what has ended, how, and what follows it."""
    ends: list[Ended] = []
    read_on(reading(first), ahead, read, ends.append)
    return [
        (end.reading.fetch.file.name, end.outcome.state, end.follower and end.follower.fetch.file.name) for end in ends
    ]


def test_it_reads_on_until_nothing_is_ahead() -> None:
    ahead = deque(reading(name) for name in "bc")
    assert told("a", ahead, lambda _: Outcome("ready")) == [
        ("a", "ready", "b"),
        ("b", "ready", "c"),
        ("c", "ready", None),
    ]


def test_what_is_taken_back_or_added_meanwhile_counts() -> None:
    ahead = deque([reading("b")])

    def read(current: Reading) -> Outcome:
        if current.fetch.file.name == "a":
            ahead.pop()
            ahead.append(reading("c"))
        return Outcome("ready")

    assert told("a", ahead, read) == [("a", "ready", "c"), ("c", "ready", None)]


def test_where_the_cache_has_no_room_it_does_not_go_on() -> None:
    ahead = deque([reading("b")])
    assert told("a", ahead, lambda _: Outcome("no_room")) == [("a", "no_room", None)]
    assert len(ahead) == 1


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_an_error_that_nobody_foresaw_ends_one_read_and_not_the_lane(error: type[BaseException]) -> None:
    def read(current: Reading) -> Outcome:
        if current.fetch.file.name == "a":
            raise error
        return Outcome("ready")

    assert told("a", deque([reading("b")]), read) == [("a", "failed", "b"), ("b", "ready", None)]


def test_threads_that_share_what_is_ahead_read_each_of_it_once() -> None:
    ahead = deque(reading(f"{i}") for i in range(2000))
    ends: list[Ended] = []
    threads = [
        threading.Thread(target=read_on, args=(reading(name), ahead, lambda _: Outcome("ready"), ends.append))
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    names = [end.reading.fetch.file.name for end in ends]
    assert len(names) == len(set(names)) == 2004
    assert sum(end.follower is None for end in ends) == len(threads)
