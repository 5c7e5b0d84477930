"""Whatever happens to queue, files, memory and settings, in any order: the invariants hold after every step."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from warmstack.prefetch import queue_board
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S
from warmstack.prefetch.status import PrefetchStatus

from .world import CHUNK_BYTES, World

NAMES = [f"lora{i}" for i in range(6)]
BUDGET_BYTES = 14 * CHUNK_BYTES


class PrefetcherMachine(RuleBasedStateMachine):
    """The reads run one at a time, when a rule says so; everything else settles after each rule."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.world: World
        self.last: PrefetchStatus | None = None
        self.jobs = 0
        self.leases: list[object] = []

    @initialize(concurrency=st.integers(1, 3))
    def begin(self, concurrency: int) -> None:
        self.world = World(Path(self.folder.name) / "loras", budget_bytes=BUDGET_BYTES, concurrency=concurrency)
        for i, name in enumerate(NAMES):
            self.world.lora(name, (1 + 2 * i) * CHUNK_BYTES)
        self.settle()

    def settle(self) -> None:
        # Time passes: what is asked for only now and then is asked for now.
        self.world.now_s += BUSY_POLL_S
        self.loop.run_until_complete(self.world.settle(reads=False))

    @rule(names=st.lists(st.sampled_from([*NAMES, "absent"]), max_size=3), resident=st.booleans(), front=st.booleans())
    def submit(self, names: list[str], resident: bool, front: bool) -> None:
        self.jobs += 1
        self.world.submit(str(self.jobs), *names, resident=resident, front=front)
        self.settle()

    @precondition(lambda self: self.world.queue)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.world.queue))
        self.world.remove(job.job_id)
        self.settle()

    @rule()
    def clear_pending(self) -> None:
        self.world.queue[:] = [job for job in self.world.queue if job.running]
        self.settle()

    @precondition(lambda self: self.world.queue)
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        running = [job for job in self.world.queue if job.running]
        pending = [job for job in self.world.queue if not job.running]
        self.world.queue[:] = running + data.draw(st.permutations(pending))
        self.settle()

    @precondition(lambda self: self.world.queue and not self.world.queue[0].running)
    @rule()
    def run_next_job(self) -> None:
        self.world.start(self.world.queue[0].job_id)
        self.settle()

    @precondition(lambda self: self.world.queue and self.world.queue[0].running)
    @rule()
    def finish_job(self) -> None:
        del self.world.queue[0]
        self.settle()

    @precondition(lambda self: self.world.reads.waiting)
    @rule()
    def finish_a_read(self) -> None:
        self.world.reads.run_next()
        self.settle()

    @rule(name=st.sampled_from(NAMES), chunks=st.integers(1, 12))
    def replace_file(self, name: str, chunks: int) -> None:
        self.world.page_cache.pop(self.world.path(self.world.lora(name, chunks * CHUNK_BYTES)), None)

    @rule(name=st.sampled_from(NAMES))
    def remove_file(self, name: str) -> None:
        path = self.world.path(f"{name}.safetensors")
        if os.path.exists(path):
            os.unlink(path)

    @rule(name=st.sampled_from(NAMES))
    def break_file(self, name: str) -> None:
        path = self.world.path(f"{name}.safetensors")
        if os.path.exists(path):
            os.truncate(path, 50)

    @rule(name=st.sampled_from(NAMES))
    def evict(self, name: str) -> None:
        for view in self.world.cache.snapshot().adapters:
            if view.name == f"{name}.safetensors":
                self.world.cache.evict(view.key)
        self.settle()

    @rule(available_bytes=st.sampled_from([0, 1 << 19, 1 << 20, 1 << 40]))
    def memory_changes(self, available_bytes: int) -> None:
        self.world.available_bytes = available_bytes
        self.world.now_s += MEMORY_TICK_S
        self.settle()

    @rule()
    def pages_are_dropped(self) -> None:
        self.world.page_cache.clear()
        self.world.now_s += MEMORY_TICK_S
        self.settle()

    @rule(
        enabled=st.booleans(),
        concurrency=st.integers(1, 3),
        page_tier=st.booleans(),
        resident_tier=st.booleans(),
        predict=st.booleans(),
        just_in_time=st.booleans(),
    )
    def configure(self, **changes: object) -> None:
        self.world.prefetcher.configure(self.world.prefetcher.settings.updated(changes))
        self.settle()

    @rule()
    def time_passes(self) -> None:
        self.world.now_s += queue_board.REFRESH_S
        self.settle()

    @rule()
    def everything_that_is_needed_gets_warm_when_nothing_else_happens(self) -> None:
        """Files that are there and whole, as far as the tiers and their budgets reach."""
        world = self.world
        world.available_bytes = 1 << 40
        world.prefetcher.configure(world.settings)
        for _ in range(6):
            world.now_s += queue_board.REFRESH_S
            self.loop.run_until_complete(world.settle())
        assert world.budget.limit_bytes == BUDGET_BYTES
        assert not world.reads.waiting
        for job in world.prefetcher.status().queue:
            for adapter in job.adapters:
                if adapter.tier == "page":
                    assert adapter.state in ("ready", "failed"), (job, adapter)
        first = next(iter(world.prefetcher.status().queue), None)
        for adapter in first.adapters if first else ():
            assert adapter.state in ("ready", "failed", "missing"), first

    @invariant()
    def nothing_is_read_for_a_job_that_is_gone(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        wanted = {
            name
            for job in world.queue
            for name in [f"{n}.safetensors" for n in NAMES]
            if name.removesuffix(".safetensors") in json.dumps(job.payload)
        }
        status = world.prefetcher.status()
        assert {fetch.name for fetch in status.in_flight} <= wanted
        if not status.enabled:
            assert status.in_flight == ()
        assert len(status.in_flight) <= world.prefetcher.settings.concurrency + 2

    @invariant()
    def the_budget_is_never_exceeded(self) -> None:
        if hasattr(self, "world"):
            assert self.world.budget.peak_bytes <= BUDGET_BYTES

    @invariant()
    def the_status_is_plain_and_honest(self) -> None:
        if not hasattr(self, "world"):
            return
        status = self.world.prefetcher.status()
        assert self.folder.name not in json.dumps(status.as_json())
        if self.last is not None:
            assert status.revision >= self.last.revision
            if status.revision == self.last.revision:
                assert status == self.last
        self.last = status
        waste, warmed = status.page.wasted_bytes, status.page.warmed_bytes
        assert 0 <= waste <= warmed
        ids = [job.job_id for job in self.world.queue] if status.enabled else []
        assert [job.job_id for job in status.queue] == ids

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.loop.run_until_complete(self.world.close())
            assert self.world.prefetcher.status().in_flight == ()
            assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        self.folder.cleanup()


PrefetcherMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPrefetcher = PrefetcherMachine.TestCase
