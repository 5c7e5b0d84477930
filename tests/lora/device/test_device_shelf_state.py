"""Everything that can happen to a device shelf, in any order: budget, content and memory after every step."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from warmstack.loaders.upload.fake_device import FakeRead
from warmstack.lora.cache.adapter import Adapter
from warmstack.lora.device.device_adapter import DeviceAdapter
from warmstack.lora.library.file import AdapterKey

from ..shelf_kit import Shop, adapter_of, content, raw

SIZES = {"a": 300, "b": 700, "c": 1000, "d": 1300, "e": 100}
ADAPTERS = {name: adapter_of(name, nbytes) for name, nbytes in SIZES.items()}
CONTENT = {adapter.key: content(adapter) for adapter in ADAPTERS.values()}
BUDGETS = st.sampled_from([0, 500, 1000, 1700, 2600])
names = st.sampled_from(sorted(ADAPTERS))


class ShelfMachine(RuleBasedStateMachine):
    uses: Bundle[DeviceAdapter] = Bundle("uses")
    reads: Bundle[tuple[AdapterKey, FakeRead]] = Bundle("reads")

    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop(1700, slots=2, fillers=1, lag=3, streams=2)
        self.limit_bytes = self.highest_bytes = 1700
        self.in_use: list[DeviceAdapter] = []
        self.queued: list[tuple[AdapterKey, FakeRead]] = []
        self.asked = {"hit": 0, "join": 0, "miss": 0}
        self.is_closed = False

    @rule(name=names, next_use=st.none() | st.integers(0, 5), gives_up_after=st.none() | st.integers(0, 3))
    def prefetch(self, name: str, next_use: int | None, gives_up_after: int | None) -> None:
        adapter = ADAPTERS[name]
        sooner = self._sooner_than(next_use)
        questions = iter(range(99))

        def cancelled() -> bool:
            return gives_up_after is not None and next(questions) >= gives_up_after

        outcome = self.shop.shelf.prefetch(adapter, next_use, cancelled=cancelled)
        assert outcome != "cancelled" or self.is_closed or gives_up_after is not None
        assert (outcome == "ready") <= self.shop.shelf.holds(adapter.key)
        # Do no harm: what is needed at least as soon is still there.
        assert all(self.shop.shelf.holds(key) for key in sooner)

    def _sooner_than(self, next_use: int | None) -> list[Any]:
        views = self.shop.shelf.snapshot().adapters
        return [
            view.key for view in views
            if next_use is None or (view.next_use is not None and view.next_use <= next_use)
        ]  # fmt: skip

    @rule(target=uses, name=names)
    def wait(self, name: str) -> Any:
        adapter = ADAPTERS[name]
        was_there = self.shop.shelf.holds(adapter.key)
        return self._taken(adapter, self.shop.shelf.wait_for_prefetch(adapter.key), was_there)

    @rule(target=uses, name=names)
    def demand(self, name: str) -> Any:
        return self._taken(ADAPTERS[name], self.shop.shelf.acquire(ADAPTERS[name]), False)

    def _taken(self, adapter: Adapter, used: DeviceAdapter | None, certain: bool) -> Any:
        assert used is not None or not certain
        if used is None:
            self.asked["miss"] += 1
            return multiple()
        self.asked[used.outcome] += 1
        assert {key: raw(tensor) for key, tensor in used.tensors.items()} == CONTENT[adapter.key]
        self.in_use.append(used)
        return used

    @rule(target=reads, used=uses)
    def work(self, used: DeviceAdapter) -> Any:
        """The computing stream gets work that reads the adapter later."""
        if used not in self.in_use:
            return multiple()
        queued = used.key, self.shop.device.read_later(used.tensors["up"])
        self.queued.append(queued)
        return queued

    @rule(target=reads, name=names)
    def job(self, name: str) -> Any:
        """Its work is queued, and its use is over before any of it has run: as every job ends."""
        used = self._taken(ADAPTERS[name], self.shop.shelf.acquire(ADAPTERS[name]), False)
        if used not in self.in_use:
            return multiple()
        queued = self.work(used)
        used.release()
        self.in_use.remove(used)
        return queued

    @rule(used=consumes(uses))
    def release(self, used: DeviceAdapter) -> None:
        used.release()
        self.in_use.remove(used)

    @rule(used=consumes(uses))
    def forget(self, used: DeviceAdapter) -> None:
        """Dropped without a release, as far as a machine that remembers its values can: the finalizer runs."""
        used._dropped()
        used._tensors = None
        self.in_use.remove(used)

    @rule(read=consumes(reads))
    def compute(self, read: tuple[AdapterKey, FakeRead]) -> None:
        key, seen = read
        assert seen.seen == CONTENT[key]["up"]

    @rule()
    def bus_catches_up(self) -> None:
        self.shop.device.perform_all()

    @rule(name=names)
    def evict(self, name: str) -> None:
        # One that was cleared away under its user and has come back is a new one.
        uses = {view.key: view.uses for view in self.shop.shelf.snapshot().adapters}
        assert self.shop.shelf.evict(ADAPTERS[name].key) == (uses.get(ADAPTERS[name].key) == 0)

    @rule(limit_bytes=BUDGETS)
    def resize(self, limit_bytes: int) -> None:
        self.shop.shelf.resize(limit_bytes)
        self.limit_bytes = limit_bytes
        self.highest_bytes = max(self.highest_bytes, limit_bytes)

    @rule(positions=st.dictionaries(names, st.integers(0, 5)))
    def queue(self, positions: dict[str, int]) -> None:
        self.shop.shelf.plan_uses({ADAPTERS[name].key: position for name, position in positions.items()})

    @rule(limit_bytes=st.sampled_from([400, 1200, None]))
    def device_memory(self, limit_bytes: int | None) -> None:
        self.shop.device.memory_limit_bytes = limit_bytes
        self.shop.now_s += 100.0

    @rule(copies_from_now=st.integers(0, 4))
    def bus_breaks(self, copies_from_now: int) -> None:
        self.shop.device.failing_copy = self.shop.device.copies + copies_from_now

    @rule()
    def clear(self) -> None:
        self.shop.shelf.clear()

    @rule()
    def close(self) -> None:
        self.shop.shelf.close()
        self.is_closed = True
        assert self.shop.device.pinned_bytes == 0

    @invariant()
    def budget_is_kept(self) -> None:
        device, budget = self.shop.device, self.shop.budget
        assert device.allocated_bytes <= budget.used_bytes
        assert budget.peak_bytes <= self.highest_bytes
        in_use_bytes = sum(entry.nbytes for entry in self.shop.shelf.snapshot().adapters)
        assert in_use_bytes <= budget.used_bytes

    @invariant()
    def no_slot_was_filled_too_early(self) -> None:
        assert self.shop.device.overwritten == 0

    @invariant()
    def what_is_in_use_stays_right(self) -> None:
        for used in self.in_use:
            assert raw(used.tensors["down"]) == CONTENT[used.key]["down"]
        stats = self.shop.shelf.snapshot().stats
        assert stats.hits + stats.joins + stats.misses == sum(self.asked.values())

    def teardown(self) -> None:
        shop = self.shop
        for used in self.in_use:
            used.release()
        self.in_use.clear()
        shop.device.perform_all()
        for key, read in self.queued:
            assert read.seen == CONTENT[key]["up"], "memory was given away under work that had been queued"
        shop.device.compute_all()
        shop.shelf.close()
        assert (shop.budget.used_bytes, shop.device.allocated_bytes, shop.device.pinned_bytes) == (0, 0, 0)


TestShelf = ShelfMachine.TestCase
TestShelf.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
