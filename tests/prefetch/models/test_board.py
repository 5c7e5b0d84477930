"""The board of models keeps in step with the queue, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warmstack.prefetch.models.board import ModelBoard
from warmstack.prefetch.models.file import ModelFile
from warmstack.prefetch.queue.job import ModelReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds


def find(kind: str, name: str) -> tuple[ModelFile, ...]:
    return () if name == "gone" else (ModelFile(kind, name, f"/m/{name}", len(name), 1),)


async def at_once(call: Callable[[], Any]) -> Any:
    return call()


def needs(number: int, running: bool, names: tuple[str, ...]) -> JobNeeds:
    references = References(models=tuple(ModelReference("vae", name) for name in names))
    return JobNeeds(QueuedJob(str(number), None, running), references, ())


def seen_at_once(queue: tuple[JobNeeds, ...]) -> Any:
    board = ModelBoard(find, at_once, lambda: 0.0, lambda path: None)
    if board.observe(queue):
        asyncio.run(board.look_up())
    return board.jobs


NAMES = st.lists(st.sampled_from(["a", "b", "cc", "gone"]), max_size=2).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "front"]), NAMES),
        st.tuples(st.sampled_from(["start", "end", "clear", "look"]), st.just(())),
        st.tuples(st.just("drop"), st.integers(0, 3)),
    ),
    max_size=20,
)


@given(STEPS)
def test_step_by_step_it_shows_what_it_would_show_of_the_queue_at_once(steps: list[tuple[str, Any]]) -> None:
    board = ModelBoard(find, at_once, lambda: 0.0, lambda path: None)
    queue: list[JobNeeds] = []
    for number, (step, value) in enumerate(steps):
        if step == "add":
            queue.append(needs(number, False, value))
        elif step == "front":
            queue.insert(1 if queue and queue[0].job.running else 0, needs(number, False, value))
        elif step == "start" and queue and not queue[0].job.running:
            queue[0] = JobNeeds(QueuedJob(queue[0].job.job_id, None, True), queue[0].references, ())
        elif step == "end" and queue and queue[0].job.running:
            del queue[0]
        elif step == "drop" and value < len(queue):
            del queue[value]
        elif step == "clear":
            queue.clear()
        if board.observe(tuple(queue)) and step == "look":
            asyncio.run(board.look_up())
        assert [(job.key, job.running) for job in board.jobs] == [(n.job.key, n.job.running) for n in queue]
    if board.observe(tuple(queue)):
        asyncio.run(board.look_up())
    assert board.jobs == seen_at_once(tuple(queue))
