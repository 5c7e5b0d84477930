"""The board of models keeps in step with the queue, whatever happens to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders.system.disk_kind import Disk
from warmstack.prefetch.models import board as board_module
from warmstack.prefetch.models.board import AWAY_S, RELOOK_S, ModelBoard
from warmstack.prefetch.models.file import ModelFile
from warmstack.prefetch.queue.job import ModelReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds
from warmstack.prefetch.rest import REST_SHARE

from ..patience import DEADLINE_S


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


class SlowShare:
    """Each name takes longer than others wait for it."""

    def __init__(self, name_s: float) -> None:
        self.name_s = name_s
        self.now_s = 0.0
        self.looks: list[tuple[float, str]] = []
        self.board = ModelBoard(self.find, self.offload, lambda: self.now_s, lambda path: Disk("share", "network"))
        self.queue: tuple[JobNeeds, ...] = ()
        self._is_looking, self._is_overdue = threading.Event(), threading.Event()

    def find(self, kind: str, name: str) -> tuple[ModelFile, ...]:
        self.looks.append((self.now_s, name))
        self._is_looking.set()
        assert self._is_overdue.wait(DEADLINE_S)
        self.now_s += self.name_s
        return find(kind, name)

    async def offload(self, call: Callable[[], None]) -> None:
        """With a poll of the queue while the name is overdue."""
        self._is_looking.clear()
        self._is_overdue.clear()
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        assert self._is_looking.wait(DEADLINE_S)
        await asyncio.sleep(0.001)
        self.board.observe(self.queue)
        self._is_overdue.set()
        thread.join()

    async def poll_until(self, end_s: float) -> None:
        while self.now_s < end_s:
            if self.board.observe(self.queue):
                await self.board.look_up()
            else:
                self.now_s += 0.25


@pytest.mark.parametrize("name_s", [0.1, 0.35])
def test_on_a_slow_share_new_names_come_first_and_looks_at_known_ones_take_a_small_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch, name_s: float
) -> None:
    monkeypatch.setattr(board_module, "PATIENCE_S", 0)
    share = SlowShare(name_s)
    names = [f"{number}" for number in range(60)]
    round_s = len(names) * name_s
    share.queue = tuple(needs(number, not number, (name,)) for number, name in enumerate(names))
    rounds = 3
    asyncio.run(share.poll_until(rounds * REST_SHARE * round_s))
    looks = [name for _, name in share.looks]
    assert len(looks) > len(names), "a replaced file is never noticed"
    assert looks == ((rounds + 1) * names)[: len(looks)], "each name once, then a pause"


class Clocked:
    """A board of names that are looked up at once, each on a disk of its own; `after` is called on the loop when a look
    has ended."""

    def __init__(self, *names: str) -> None:
        self.now_s = 0.0
        self.looks: list[str] = []
        self.during: Callable[[str], bool] = lambda name: True
        """Called in each look; False when nothing is found."""
        self.after: Callable[[], None] = lambda: None
        self.board = ModelBoard(self.find, self.offload, lambda: self.now_s, lambda path: Disk(path, "network"))
        self.queue = tuple(needs(number, not number, (name,)) for number, name in enumerate(names))

    def find(self, kind: str, name: str) -> tuple[ModelFile, ...]:
        self.looks.append(name)
        return find(kind, name) if self.during(name) else ()

    async def offload(self, call: Callable[[], Any]) -> None:
        call()
        self.after()

    async def poll_for(self, seconds: float) -> list[str]:
        """The names that are looked up meanwhile."""
        self.looks.clear()
        end_s = self.now_s + seconds
        while True:
            if self.board.observe(self.queue):
                await self.board.look_up()
            if self.now_s >= end_s:
                return self.looks
            self.now_s += 0.25


@pytest.mark.parametrize("is_found", [True, False])
async def test_a_name_that_hung_leaves_those_of_other_disks_as_they_were(is_found: bool) -> None:
    def hang(name: str) -> bool:
        share.now_s += 30 if name == "b" else 0
        return name != "b" or is_found

    share = Clocked("a", "b", "c")
    share.during = hang
    assert await share.poll_for(0) == ["a", "b", "c"]
    looks = await share.poll_for(2 * RELOOK_S)
    assert "b" not in looks
    assert min(looks.count("a"), looks.count("c")) >= 2


async def test_names_that_a_share_did_not_find_are_looked_up_soon_after_it_is_back() -> None:
    """However long it has hung."""

    def hang(name: str) -> bool:
        share.now_s += 30 if name == "b" else 0
        return name != "b"

    share = Clocked("b")
    share.during = hang
    assert await share.poll_for(0) == ["b"]
    assert await share.poll_for(AWAY_S - 1) == []
    assert await share.poll_for(2) == ["b"], "it is still away"
    share.during = lambda name: True
    assert "b" in await share.poll_for(AWAY_S)
    assert [len(job.files) for job in share.board.jobs] == [1]


async def test_a_loop_that_stands_still_makes_no_slow_disk() -> None:
    """A node pack is imported, say, while a look comes back."""

    def stand_still() -> None:
        share.now_s += 60

    share = Clocked("a")
    share.after = stand_still
    await share.poll_for(0)
    assert await share.poll_for(RELOOK_S) == ["a"]


async def test_looks_side_by_side_count_as_the_time_that_they_take_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "PATIENCE_S", 0)
    share = Clocked(*(names := [f"{number}" for number in range(4)]))

    def go_on() -> None:
        share.now_s += 1

    together = threading.Barrier(len(names), go_on)
    share.during = lambda name: together.wait(DEADLINE_S) >= 0
    board = ModelBoard(share.find, asyncio.to_thread, lambda: share.now_s, lambda path: None)
    looks: list[asyncio.Task[None]] = []
    while len(share.looks) < len(names):
        if board.observe(share.queue):
            looks.append(asyncio.create_task(board.look_up()))
        await asyncio.sleep(0.001)
    await asyncio.gather(*looks)
    board.observe(share.queue)
    share.now_s += REST_SHARE - 1
    assert not board.observe(share.queue)
    share.now_s += 1
    assert board.observe(share.queue)
