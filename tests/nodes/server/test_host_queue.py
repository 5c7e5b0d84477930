"""HostQueue: in the host's order, and no job is made before somebody looks at it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from warmstack.nodes.server.host_queue import HostQueue
from warmstack.prefetch.queue.board import ARRIVING_JOBS, JOBS_IN_SIGHT, in_sight
from warmstack.prefetch.queue.job import QueuedJob


def item(number: float, prompt_id: str = "") -> tuple[Any, ...]:
    return number, prompt_id or str(number), {"of": number}, {}, ["9"], {"key": "secret"}


def test_it_is_a_sequence_of_jobs_running_first() -> None:
    queue = HostQueue([item(7)], [item(3), item(1, "twice"), item(-2), item(2, "twice")])
    assert [(job.job_id, job.ticket, job.running) for job in queue] == [
        ("7", 7, True), ("-2", -2, False), ("twice", 1, False), ("twice", 2, False), ("3", 3, False),
    ]  # fmt: skip
    assert queue[0].payload == ({"of": 7}, ["9"])
    assert len(queue) == 5
    assert list(queue[1:3]) == [queue[1], queue[2]]
    with pytest.raises(IndexError):
        queue[5]


def test_only_the_jobs_in_sight_of_a_long_queue_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(*args: Any, **kwargs: Any) -> QueuedJob:
        made.append(job := QueuedJob(*args, **kwargs))
        return job

    monkeypatch.setattr("warmstack.nodes.server.host_queue.QueuedJob", make)
    items = [item(number) for number in range(5000)]
    random.Random(0).shuffle(items)
    seen = in_sight(HostQueue([], items), ())
    assert [job.ticket for job in seen] == list(range(JOBS_IN_SIGHT + ARRIVING_JOBS))
    assert len(made) == len(seen)
