"""PrefetcherMachine: everything that can happen to a queue, its files, memory and settings, as rules in any order."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from warmstack.lora.cache.cache_stats import AdapterView
from warmstack.lora.cache.lease import Lease
from warmstack.lora.errors import (
    AdapterLoadCancelledError,
    AdapterLoadError,
    AdapterUnavailableError,
    LoraNotFoundError,
)
from warmstack.lora.library.file import AdapterKey
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.queue.scan import REFRESH_S
from warmstack.prefetch.status import PrefetchStatus

from .choices import BUDGET_BYTES, CHANGES, JOBS, NAMES, PLENTY_BYTES, Job, names
from .counted_load import CountedLoad
from .demands import Demand
from .held_reads import HeldReads
from .open_log import OpenLog
from .patience import threads
from .world import CHUNK_BYTES, World


class PrefetcherMachine(RuleBasedStateMachine):
    """Rules only; what must hold after each of them is in `test_prefetcher_states`.

    A read runs in a thread that stops at its first chunk until a rule lets it go on to its end, so that other rules
    may find it half way. Everything else settles after each rule. Which rules may come next, and what they draw,
    depends on the queue alone: when a read that was paused goes on is a matter of the scheduler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.loop = asyncio.new_event_loop()
        self.raised: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.raised.append(context))
        self.jobs = 0
        self.named: dict[str, Job] = {}
        """Every job that was ever queued."""
        self.unreadable: set[str] = set()
        self.failed_page_reads: dict[AdapterKey, int] = {}
        self.demands: list[Demand] = []
        self.leases: list[Lease] = []
        self.taken = 0
        """Leases ever handed out."""
        self.dropped: set[AdapterKey] = set()
        """Adapters that `/free` or a missing file took from the cache once: they may live by their leases alone."""
        self.is_running = True
        self.last: PrefetchStatus | None = None
        """What this prefetcher told last."""

    @initialize(
        concurrency=st.integers(1, 3), jobs=st.lists(JOBS, min_size=2, max_size=4), bad=st.sets(names, max_size=2)
    )
    def begin(self, concurrency: int, jobs: list[Job], bad: set[str]) -> None:
        self.reads = HeldReads()
        self.load = CountedLoad(self.reads)
        self.world = World(
            self.folder / "loras",
            budget_bytes=BUDGET_BYTES,
            load=self.load,
            reads=self.reads,
            state_folder=self.folder / "state",
            concurrency=concurrency,
        )
        self.world.on_chunk = self.on_chunk
        for i, name in enumerate(NAMES):
            self.world.lora(name, (1 + 2 * i) * CHUNK_BYTES)
        (self.folder / "outside").mkdir()
        (self.folder / "outside" / "secret.safetensors").write_bytes(b"not for a request")
        (self.world.root / "old.pt").write_bytes(b"\x80\x02cposix\nsystem\n")
        self.log = OpenLog(self.world.root, self.folder / "outside")
        for job in jobs:
            self.queue(job)
        self.unreadable = {f"{name}.safetensors" for name in bad}
        self.settle()
        self.begin_reads(2)

    # How a step ends

    def settle(self) -> None:
        # Time passes: what is asked for only now and then is asked for now.
        self.world.now_s += BUSY_POLL_S
        before = -1
        while before != len(self.reads.under_way):
            # A read that was paused may go on to its end, and make way for others.
            before = len(self.reads.under_way)
            if self.is_running:
                self.loop.run_until_complete(self.world.settle(reads=False))
            self.reads.come_to_rest()
            self.collect()

    def collect(self) -> None:
        """Takes in the demands that are over."""
        for demand in self.demands:
            if not self.load.background[demand.file.key]:
                demand.join()
        for demand in [demand for demand in self.demands if demand.is_over]:
            self.demands.remove(demand)
            lease = demand.take()
            if lease is not None:
                assert lease.adapter.key == demand.file.key, "another content than the one on disk at that time"
                self.taken += 1
                self.leases.append(lease)
            elif demand.is_cancelled:
                assert isinstance(demand.error, AdapterLoadCancelledError), demand.error
            else:
                self.check_refusal(demand)

    def check_refusal(self, demand: Demand) -> None:
        """A demand may fail for what its file is, and for nothing else."""
        key = demand.file.key
        if type(demand.error) is AdapterLoadError:
            assert b"lora_unet_x" not in self.world.written[key], "a whole file was refused"
        else:
            assert isinstance(demand.error, AdapterUnavailableError), demand.error
            assert self.key_on_disk(demand.file.name) != key, "an untouched file was not there"

    def on_chunk(self, path: str, done_bytes: int) -> None:
        if os.path.basename(path) in self.unreadable:
            key = self.key_on_disk(os.path.basename(path))
            if key is not None:
                self.failed_page_reads[key] = self.failed_page_reads.get(key, 0) + 1
            raise OSError(5, "Input/output error", path)

    def key_on_disk(self, name: str) -> AdapterKey | None:
        path = self.world.path(name)
        try:
            found = os.stat(path)
        except OSError:
            return None
        return AdapterKey(path, found.st_size, found.st_mtime_ns)

    def residents(self) -> dict[AdapterKey, AdapterView]:
        return {view.key: view for view in self.world.cache.snapshot().adapters if view.state == "ready"}

    @property
    def running(self) -> QueuedJob | None:
        queue = self.world.queue
        return queue[0] if queue and queue[0].running else None

    # The queue

    @rule(job=JOBS, front=st.booleans())
    def submit(self, job: Job, front: bool) -> None:
        self.queue(job, front)
        self.settle()

    def queue(self, job: Job, front: bool = False) -> None:
        chosen, resident = job
        self.jobs += 1
        self.named[str(self.jobs)] = job
        self.world.submit(str(self.jobs), *chosen, resident=resident, front=front)

    @precondition(lambda self: self.world.queue)
    @rule(how=st.sampled_from(["delete", "clear", "reorder"]), data=st.data())
    def change_queue(self, how: str, data: st.DataObject) -> None:
        queue = self.world.queue
        running = [job for job in queue if job.running]
        if how == "delete":
            self.world.remove(data.draw(st.sampled_from(queue)).job_id)
        elif how == "clear":
            queue[:] = running
        else:
            queue[:] = running + data.draw(st.permutations(queue[len(running) :]))
        self.settle()

    @precondition(lambda self: self.world.queue and self.running is None)
    @rule()
    def run_next_job(self) -> None:
        job_id = self.world.queue[0].job_id
        self.world.start(job_id)
        self.settle()
        chosen, resident = self.named[job_id]
        for name in chosen if resident else ():
            if name in NAMES:
                self.ask_for(f"{name}.safetensors")

    @precondition(lambda self: self.running is not None)
    @rule(interrupted=st.booleans(), released=st.booleans())
    def end_job(self, interrupted: bool, released: bool) -> None:
        """Interrupted, it waits no longer for what it waits for. Its model, and with it the leases, may outlive it."""
        del self.world.queue[0]
        if interrupted:
            for demand in self.demands:
                demand.cancel()
        if released:
            self.leases.clear()
        self.settle()

    # Reads and demands

    @rule(count=st.integers(1, 3))
    def begin_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.reads.waiting))):
            self.begin_a_read()
        self.settle()

    def begin_a_read(self) -> None:
        before = self.residents()
        self.reads.begin_next()
        after = self.residents()
        self.check_no_harm([view for key, view in before.items() if key not in after and self.is_current(key)])

    def check_no_harm(self, gone: list[AdapterView]) -> None:
        """A prefetch takes nothing that the running or next job needs, nothing in use, nothing pinned."""
        for view in gone:
            assert view.next_use != 0, view
            assert not view.leases, view
            assert not view.pinned, view

    def is_current(self, key: AdapterKey) -> bool:
        return self.key_on_disk(os.path.basename(key.path)) == key

    @rule(chosen=st.integers(0, 2))
    def end_a_read(self, chosen: int) -> None:
        held = len(self.reads.held)
        if held:
            self.reads.end(chosen % held)
        self.settle()

    @rule(name=names)
    def demand(self, name: str) -> None:
        self.ask_for(f"{name}.safetensors")

    @rule(chosen=st.integers(0, 2))
    def demand_what_is_being_read(self, chosen: int) -> None:
        loading = sorted(key.path for key, loads in self.load.background.items() if loads)
        if loading:
            self.ask_for(os.path.basename(loading[chosen % len(loading)]))

    def ask_for(self, name: str) -> None:
        try:
            file = self.world.catalog.find(name)
        except LoraNotFoundError:
            assert self.key_on_disk(name) is None
            return
        self.demands.append(Demand(self.world.cache, file, joins=bool(self.load.background[file.key])))
        self.settle()

    @rule(chosen=st.integers(0, 9), dropped=st.booleans())
    def end_a_lease(self, chosen: int, dropped: bool) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(chosen % len(self.leases))
        key, was_streamed = lease.adapter.key, lease.adapter.storage == "mapped"
        if not dropped:
            lease.release()
        del lease
        if not was_streamed and key not in self.dropped and self.is_current(key):
            assert key in self.residents(), "it was evicted while it was in use"
        self.settle()

    # Files

    @rule(name=names, how=st.sampled_from(["same size", "other size", "broken"]), chunks=st.integers(1, 12))
    def replace_file(self, name: str, how: str, chunks: int) -> None:
        file, key = f"{name}.safetensors", self.key_on_disk(f"{name}.safetensors")
        if how == "broken":
            self.world.write(file, b"\xff" * 50)
        elif how == "same size" and key is not None:
            self.world.write(file, self.world.written[key][:-4] + os.urandom(4))
        else:
            self.world.lora(name, chunks * CHUNK_BYTES)
        self.world.page_cache.pop(self.world.path(file), None)

    @rule(name=names)
    def move_file(self, name: str) -> None:
        """Away, or back as it was; what is there by then stays."""
        path = Path(self.world.path(f"{name}.safetensors"))
        parked = self.folder / path.name
        if path.exists() and not parked.exists():
            self.dropped.update(key for key in self.residents() if key.path == str(path))
            path.rename(parked)
        elif parked.exists() and not path.exists():
            parked.rename(path)

    @rule(name=names, unreadable=st.booleans())
    def disk_fails(self, name: str, unreadable: bool) -> None:
        (self.unreadable.add if unreadable else self.unreadable.discard)(f"{name}.safetensors")

    # Memory, settings, time

    @rule(name=names, verb=st.sampled_from(["evict", "pin", "unpin", "free"]))
    def act(self, name: str, verb: str) -> None:
        key = self.key_on_disk(f"{name}.safetensors")
        if verb == "free":
            self.free()
        elif key is not None:
            getattr(self.world.cache, verb)(key)
        self.settle()

    def free(self) -> None:
        """What the host's `/free` asks for."""
        self.dropped.update(self.residents())
        self.world.cache.clear()
        self.load.failures.clear()
        if not self.leases:
            assert self.world.budget.used_bytes == self.load.reserved_bytes

    @rule(available_bytes=st.sampled_from([0, 1 << 20, PLENTY_BYTES, PLENTY_BYTES]))
    def memory_changes(self, available_bytes: int) -> None:
        self.world.available_bytes = available_bytes
        self.world.now_s += MEMORY_TICK_S
        self.settle()

    @rule(change=st.sampled_from(CHANGES))
    def configure(self, change: dict[str, object]) -> None:
        self.world.prefetcher.configure(self.world.settings.updated(change))
        self.settle()

    @rule(what=st.sampled_from(["nothing", "rescan", "pages dropped"]))
    def time_passes(self, what: str) -> None:
        if what == "rescan":
            self.world.catalog.refresh()
        if what == "pages dropped":
            self.world.page_cache.clear()
        self.world.now_s += REFRESH_S
        self.settle()

    # The end, and a new beginning

    @rule()
    def shut_down_or_start_again(self) -> None:
        if self.is_running:
            self.end()
            assert not self.demands, "a waiter outlived the end"
        else:
            self.start_again()

    def end(self) -> None:
        self.loop.run_until_complete(self.world.close())
        self.is_running = False
        self.collect()

    def start_again(self) -> None:
        self.world.cache.resize(BUDGET_BYTES)
        self.world.build()
        self.world.task = None
        self.last = None
        self.failed_page_reads.clear()
        self.is_running = True
        self.settle()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.check_end()
        finally:
            self.loop.close()
            self.temporary.cleanup()

    def check_end(self) -> None:
        """With the last lease gone, nothing of ours is left."""
        if self.is_running:
            self.end()
        self.log.close()
        self.leases.clear()
        self.world.cache.clear()
        assert self.world.budget.used_bytes == 0
        assert self.load.live_bytes == 0
        assert not threads()
