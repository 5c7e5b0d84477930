"""Reading: paused between two chunks, it goes on where it was; cancelled or waited for, nothing holds it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from warmstack.loaders.system import page_cache
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.reading.gate import Gate
from warmstack.prefetch.reading.reading import Outcome, Reading

from ..world import World

CHUNK_BYTES = 1024
CHUNKS = 10
DEADLINE_S = 20.0


class Chunks(RateLimit):
    """Notes every chunk that is let through, and calls back in the thread that reads."""

    def __init__(self, passing: Callable[[int], None]) -> None:
        super().__init__(1.0)
        self.sizes: list[int] = []
        self._passing = passing

    def spend(self, nbytes: int, cancelled: Callable[[], bool] | None = None) -> None:
        self.sizes.append(nbytes)
        self._passing(len(self.sizes))


class Run:
    """A page read of ten chunks in a thread of its own; it pauses itself while it reads the third."""

    def __init__(self, folder: Path) -> None:
        path = folder / "file"
        path.write_bytes(os.urandom(CHUNKS * CHUNK_BYTES))
        self.paused = threading.Event()
        self.chunks = Chunks(self.at_chunk)
        file = LoraFile("file", str(path), CHUNKS * CHUNK_BYTES, 0)
        self.reading = Reading(Fetch(file, "page", 0), lambda: self.chunks)
        self.outcome: Outcome | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.paused.wait(DEADLINE_S)

    def at_chunk(self, number: int) -> None:
        if number == 3:
            self.reading.pause()
            self.paused.set()

    def run(self) -> None:
        warm_file = partial(page_cache.warm_file, chunk_bytes=CHUNK_BYTES)
        machine = Machine(warm_file=warm_file, resident_bytes=lambda path: None)
        self.outcome = self.reading.run(None, machine)

    def end(self) -> Outcome:
        self.thread.join(DEADLINE_S)
        assert self.outcome is not None
        return self.outcome


def test_a_paused_read_goes_on_where_it_was_and_reads_nothing_twice(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert len(run.chunks.sizes) == 3
    run.reading.resume()
    assert run.end().state == "ready"
    assert run.chunks.sizes == [CHUNK_BYTES] * CHUNKS


def test_a_paused_read_that_is_cancelled_reads_no_further(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.reading.cancel()
    assert run.end().state == "cancelled"
    assert run.reading.stopped_idle
    assert len(run.chunks.sizes) <= 4, "the chunk that was asked for when the cancel came is not read"


def test_one_that_was_cancelled_cannot_be_paused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.reading.cancel()
    run.reading.pause()
    assert run.end().state == "cancelled"


def test_what_has_not_begun_gives_its_thread_back(tmp_path: Path) -> None:
    reading = Reading(Fetch(LoraFile("a", "/absent", 1, 0), "page", 0), lambda: None)
    reading.pause()
    assert reading.run(None, Machine()) == Outcome("cancelled")


class Standing:
    """A closed gate before which a thread stands; it is known to stand there when it has been asked again."""

    def __init__(self) -> None:
        self.joined = 0
        self.is_cancelled = self.is_released = False
        self.asked = threading.Semaphore(0)
        self.passed = threading.Event()
        self.gate = Gate(lambda: None, lambda: self.is_cancelled, self.join)
        self.gate.is_open = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        for _ in range(4):
            assert self.asked.acquire(timeout=DEADLINE_S)
        assert not self.passed.is_set()

    def ask(self) -> bool:
        self.asked.release()
        return self.is_released

    def join(self) -> None:
        self.joined += 1

    def run(self) -> None:
        self.gate.spend(10, self.ask)
        self.passed.set()
        self.gate.spend(10, self.ask)


def test_a_gate_holds_until_it_opens_and_tells_for_how_long() -> None:
    standing = Standing()
    standing.gate.is_open = True
    assert standing.passed.wait(DEADLINE_S)
    assert standing.gate.held_s > 0
    assert standing.joined == 0


def test_a_demand_passes_a_closed_gate_and_is_told_once() -> None:
    standing = Standing()
    standing.is_released = True
    assert standing.passed.wait(DEADLINE_S)
    standing.thread.join(DEADLINE_S)
    assert (standing.gate.is_demanded, standing.joined) == (True, 1)


def test_a_cancel_passes_a_closed_gate_and_is_no_demand() -> None:
    standing = Standing()
    standing.is_cancelled = True
    standing.is_released = True
    assert standing.passed.wait(DEADLINE_S)
    standing.thread.join(DEADLINE_S)
    assert (standing.gate.is_demanded, standing.joined) == (False, 0)


@pytest.mark.parametrize("next_limit", [None, RateLimit(1e12)])
def test_a_limit_that_is_lifted_or_raised_lets_go_who_waits_under_it(next_limit: RateLimit | None) -> None:
    waits, passed = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        waits.set()
        time.sleep(0.001)

    limits: list[RateLimit | None] = [RateLimit(1.0, sleep=sleep)]
    gate = Gate(lambda: limits[-1], lambda: False)

    def read() -> None:
        gate.spend(1 << 20, lambda: False)
        passed.set()

    threading.Thread(target=read, daemon=True).start()
    assert waits.wait(DEADLINE_S)
    limits.append(next_limit)
    assert passed.wait(DEADLINE_S)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_joins_a_paused_read_gets_it_going(tmp_path: Path, cancelled: bool) -> None:
    """Also one that the prefetcher has given up."""
    world = World(tmp_path / "loras")
    world.catalog.refresh()
    loading, joined = threading.Event(), threading.Event()

    def load(file: LoraFile, **options: object) -> Adapter:
        loading.set()
        if cancelled:
            assert joined.wait(DEADLINE_S)
        return load_adapter(file, **options)

    cache = AdapterCache(ByteBudget(1 << 30), load=load)
    file = world.catalog.find(world.lora("a"))
    reading = Reading(Fetch(file, "resident", 0), lambda: None, joined.set)
    reading._has_begun = True
    reading.pause()
    thread = threading.Thread(target=reading.run, args=(cache, Machine()), daemon=True)
    thread.start()
    assert loading.wait(DEADLINE_S)
    if cancelled:
        threading.Thread(target=_cancel_once_joined, args=(cache, reading, joined), daemon=True).start()
    lease = cache.acquire(file)
    thread.join(DEADLINE_S)
    assert lease.outcome == "join"
    assert reading.is_demanded != cancelled


def _cancel_once_joined(cache: AdapterCache, reading: Reading, joined: threading.Event) -> None:
    while not cache._flights or not next(iter(cache._flights.values())).demands:
        threading.Event().wait(0.001)
    reading.cancel()
    joined.set()
