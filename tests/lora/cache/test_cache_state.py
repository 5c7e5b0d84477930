"""Any order of anything that can happen to an AdapterCache, with the invariants checked after every step."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from warmstack.lora.cache.budget import ByteBudget, Reservation
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.cache_stats import AdapterView
from warmstack.lora.cache.lease import Lease
from warmstack.lora.errors import AdapterLoadError
from warmstack.lora.library.file import AdapterKey, LoraFile

from ..cache_kit import Background, Disk, GatedLoad, wait_until

NAMES = [f"{name}.safetensors" for name in "abcd"]
names = st.sampled_from(NAMES)


@dataclass(eq=False)
class Pending:
    """A prefetch or an acquire that was started behind a gate."""

    file: LoraFile
    is_demand: bool
    call: Background[object]


class CacheMachine(RuleBasedStateMachine):
    """One file per name. Loads of a name that is held stay in flight until it is let go or everybody has cancelled."""

    @initialize(limit_bytes=st.integers(0, 16_000))
    def start(self, limit_bytes: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Disk(Path(self.folder.name))
        self.load = GatedLoad()
        self.budget = ByteBudget(limit_bytes)
        self.cache = AdapterCache(self.budget, load=self.load)
        self.files = {name: self.disk.write(name, 256 * (index + 1)) for index, name in enumerate(NAMES)}
        self.gone: set[str] = set()
        self.broken: set[AdapterKey] = set()
        self.held: list[Lease] = []
        self.pending: list[Pending] = []
        self.beside: list[Reservation] = []
        self.ceiling_bytes = limit_bytes

    def in_flight(self, name: str) -> bool:
        return any(pending.file.name == name for pending in self.pending)

    # Files

    @rule(name=names, elements=st.integers(1, 1500))
    def replace_file(self, name: str, elements: int) -> None:
        self.files[name] = self.disk.write(name, elements)
        self.gone.discard(name)

    @rule(name=names)
    def break_file(self, name: str) -> None:
        self.files[name] = self.disk.write_garbage(name)
        self.broken.add(self.files[name].key)
        self.gone.discard(name)

    @rule(name=names)
    def remove_file(self, name: str) -> None:
        self.disk.remove(name)
        self.gone.add(name)

    # Demands

    @rule(name=names)
    def acquire(self, name: str) -> None:
        if self.in_flight(name):
            return
        file = self.files[name]
        resident = any(view.key == file.key for view in self.ready())
        loads = self.load.loads[file.key]
        try:
            lease = self.cache.acquire(file)
        except AdapterLoadError:
            assert name in self.gone or file.key in self.broken
            return
        assert name not in self.gone and file.key not in self.broken
        assert lease.outcome == ("hit" if resident else "miss")
        assert self.load.loads[file.key] - loads == (0 if resident else 1)
        assert lease.adapter.key == file.key, "stale"
        self.held.append(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), dropped=st.booleans())
    def end_a_lease(self, data: st.DataObject, dropped: bool) -> None:
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if not dropped:
            lease.release()
            lease.release()

    # Prefetches

    @rule(name=names)
    def prefetch(self, name: str) -> None:
        if self.in_flight(name):
            return
        file = self.files[name]
        outcome = self.cache.prefetch(file)
        if outcome != "no_room":
            assert (outcome == "unavailable") == (name in self.gone)
            assert (outcome == "failed") == (file.key in self.broken and name not in self.gone)
        ready = {view.key for view in self.ready()}
        assert (file.key in ready) >= (outcome in ("ready", "already"))

    # Interleavings

    @rule(name=names, is_demand=st.booleans())
    def start_behind_a_gate(self, name: str, is_demand: bool) -> None:
        file = self.files[name]
        self.load.hold(name)
        before = self.progress(file)

        def work(cancelled: object) -> object:
            if is_demand:
                return self.cache.acquire(file, cancelled=cancelled)
            return self.cache.prefetch(file, cancelled=cancelled)

        call: Background[object] = Background(work)
        wait_until(lambda: call.done or self.progress(file) != before)
        self.pending.append(Pending(file, is_demand, call))
        self.collect()

    def progress(self, file: LoraFile) -> tuple[int, int]:
        waiting = sum(view.waiting for view in self.cache.snapshot().adapters if view.key == file.key)
        return self.load.loads[file.key], waiting

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        chosen = data.draw(st.integers(0, len(self.pending) - 1))
        self.pending[chosen].call.cancel.set()
        flight = [pending for pending in self.pending if pending.file.key == self.pending[chosen].file.key]
        if all(pending.call.cancel.is_set() for pending in flight):
            for pending in flight:
                pending.call.join()
        self.collect()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.pending)).file.name
        self.load.let_go(name)
        for pending in self.pending:
            if pending.file.name == name:
                pending.call.join()
        self.collect()

    def collect(self) -> None:
        for pending in [pending for pending in self.pending if pending.call.done]:
            self.pending.remove(pending)
            try:
                value = pending.call.result()
            except AdapterLoadError:
                assert pending.is_demand
                continue
            if isinstance(value, Lease):
                self.held.append(value)
        for name in NAMES:
            if not self.in_flight(name):
                self.load.let_go(name)

    # What people and the machine do to the cache

    @rule(name=names)
    def evict(self, name: str) -> None:
        self.cache.evict(self.files[name].key)

    @rule(name=names, pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        (self.cache.pin if pinned else self.cache.unpin)(self.files[name].key)

    @rule()
    def clear(self) -> None:
        self.cache.clear()

    @rule(limit_bytes=st.integers(0, 16_000))
    def resize(self, limit_bytes: int) -> None:
        self.cache.resize(limit_bytes)
        self.ceiling_bytes = max(limit_bytes, self.budget.used_bytes)

    @rule(uses=st.dictionaries(names, st.integers(0, 5)))
    def plan(self, uses: dict[str, int]) -> None:
        self.cache.plan_uses({self.files[name].key: position for name, position in uses.items()})

    @rule(nbytes=st.integers(0, 8_000))
    def keep_something_beside(self, nbytes: int) -> None:
        ready = self.ready()
        reservation = self.cache.reserve_beside(nbytes)
        if reservation is not None:
            self.beside.append(reservation)
        assert {view.key for view in ready if view.next_use is not None} <= {view.key for view in self.ready()}

    @precondition(lambda self: self.beside)
    @rule()
    def let_what_is_beside_go(self) -> None:
        self.beside.pop().release()

    def ready(self) -> list[AdapterView]:
        return [view for view in self.cache.snapshot().adapters if view.state == "ready"]

    # What must always hold

    @invariant()
    def reserved_is_alive_and_within_the_limit(self) -> None:
        used_bytes = self.budget.used_bytes
        assert used_bytes <= self.ceiling_bytes
        beside_bytes = sum(reservation.nbytes for reservation in self.beside)
        assert used_bytes == self.load.live_bytes + self.load.reserved_bytes + beside_bytes
        self.ceiling_bytes = max(self.budget.limit_bytes, used_bytes)

    @invariant()
    def one_load_per_content_at_a_time(self) -> None:
        assert self.load.most_active <= 1

    @invariant()
    def every_lease_has_its_content(self) -> None:
        assert all(self.disk.holds_content(lease.adapter) for lease in self.held)

    @invariant()
    def what_is_leased_counts_its_leases(self) -> None:
        views = {view.key: view for view in self.ready()}
        for lease in self.held:
            if lease.adapter.storage == "private":
                same = [other for other in self.held if other.adapter is lease.adapter]
                assert views[lease.adapter.key].leases == len(same)

    def teardown(self) -> None:
        if not hasattr(self, "load"):
            return
        for name in NAMES:
            self.load.let_go(name)
        for pending in self.pending:
            pending.call.join()
        self.collect()
        for lease in self.held:
            lease.release()
        self.beside.clear()
        self.cache.clear()
        gc.collect()
        assert self.budget.used_bytes == 0
        assert self.cache.snapshot().adapters == ()
        self.folder.cleanup()


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_at_length() -> None:
    run_state_machine_as_test(CacheMachine, settings=settings(max_examples=400, stateful_step_count=80))
