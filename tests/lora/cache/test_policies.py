"""Every eviction policy in the real cache, against a plain model of its definition: who goes, who never does."""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from warmstack.lora.cache.lease import Lease
from warmstack.lora.cache.policies import Candidate, EvictionPolicy, Gdsf, Lfu, Lru, NextUse
from warmstack.lora.library.file import AdapterKey, LoraFile

from .weightless import make_cache, sparse_file

FOLDER = tempfile.TemporaryDirectory()
SIZES = (1000, 2000, 3000, 1000, 5000, 2000)
FILES = [sparse_file(Path(FOLDER.name), f"mixed{i}", size) for i, size in enumerate(SIZES)]
EQUAL = [sparse_file(Path(FOLDER.name), f"equal{i}", 1000) for i in range(8)]
BY_KEY = {file.key: file for file in FILES}
files = st.sampled_from(FILES)


@dataclass
class Known:
    """What a policy may go by, of one resident adapter."""

    uses: int
    last_used: int
    age: float = 0.0


Rank = Callable[[Known, "int | None", int, float], float | tuple[float, ...]]


def worth(known: Known, next_use: int | None, size_bytes: int, cold_s: float) -> float:
    return known.age + cold_s / size_bytes


# As the textbook has them, from what the model knows: known, next use, bytes, seconds of a cold read.
MODELS: dict[type[EvictionPolicy], Rank] = {
    NextUse: lambda k, n, b, s: (-(math.inf if n is None else n), worth(k, n, b, s), k.last_used),
    Lru: lambda k, n, b, s: k.last_used,
    Lfu: lambda k, n, b, s: (k.uses, k.last_used),
    Gdsf: lambda k, n, b, s: (k.age + k.uses / b, k.last_used),
}
AGES: dict[type[EvictionPolicy], Callable[[Known, int, float], float]] = {
    NextUse: lambda k, b, s: worth(k, None, b, s),
    Lru: lambda k, b, s: 0.0,
    Lfu: lambda k, b, s: 0.0,
    Gdsf: lambda k, b, s: k.age + k.uses / b,
}


class PolicyMachine(RuleBasedStateMachine):
    """One cache under one policy beside the model. Every call that may evict is judged by who has gone."""

    @initialize(policy=st.sampled_from(list(MODELS)), limit_bytes=st.integers(2000, 9000))
    def start(self, policy: type[EvictionPolicy], limit_bytes: int) -> None:
        self.policy = policy
        self.cache, self.budget = make_cache(limit_bytes, policy())
        self.cold_s = {file.key: float(i + 1) for i, file in enumerate(FILES)}
        for key, seconds in self.cold_s.items():
            self.cache.record_cold_read(key, seconds)
        self.known: dict[AdapterKey, Known] = {}
        self.uses: dict[AdapterKey, int] = {}
        self.pins: set[AdapterKey] = set()
        self.leases: list[Lease] = []
        self.age = 0.0
        self.now = self.used_bytes = 0

    def resident(self) -> set[AdapterKey]:
        return {view.key for view in self.cache.snapshot().adapters if view.storage == "private"}

    def is_free(self, key: AdapterKey) -> bool:
        leased = {lease.adapter.key for lease in self.leases if lease.adapter.storage == "private"}
        return key not in self.pins and key not in leased

    def rank(self, key: AdapterKey) -> tuple[bool, object]:
        known, next_use = self.known[key], self.uses.get(key)
        asked = known.uses > 0 or next_use is not None
        return asked, MODELS[self.policy](known, next_use, key.size_bytes, self.cold_s[key])

    def judge(self, before: set[AdapterKey], may_go: Callable[[AdapterKey], bool] = lambda key: True) -> None:
        """Who has gone since `before` was allowed to go, and no other who was allowed ranks lower."""
        gone = before - self.resident()
        assert all(self.is_free(key) and may_go(key) for key in gone)
        assert self.budget.used_bytes <= max(self.budget.limit_bytes, self.used_bytes)
        self.used_bytes = self.budget.used_bytes
        stayed = [key for key in before - gone if self.is_free(key) and may_go(key)]
        assert all(self.rank(left) <= self.rank(kept) for left in gone for kept in stayed)
        for key in gone:
            self.age = max(self.age, AGES[self.policy](self.known[key], key.size_bytes, self.cold_s[key]))
        for key in gone:
            del self.known[key]

    @rule(file=files, keeps=st.booleans())
    def demand(self, file: LoraFile, keeps: bool) -> None:
        before = self.resident()
        lease = self.cache.acquire(file)
        self.judge(before - {file.key})
        self.now += 1
        if lease.adapter.storage == "private":
            known = self.known.setdefault(file.key, Known(0, 0))
            known.uses, known.last_used, known.age = known.uses + 1, self.now, self.age
        if keeps:
            self.leases.append(lease)
        else:
            lease.release()

    @rule(file=files)
    def prefetch(self, file: LoraFile) -> None:
        before = self.resident()
        outcome = self.cache.prefetch(file)
        position = self.uses.get(file.key)
        self.judge(before, lambda key: position is not None and self.uses.get(key, math.inf) > position)
        if outcome == "ready":
            self.now += 1
            self.known[file.key] = Known(0, self.now)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1))).release()

    @rule(uses=st.dictionaries(st.sampled_from(sorted(BY_KEY)), st.integers(0, 2)))
    def plan(self, uses: dict[AdapterKey, int]) -> None:
        self.uses = uses
        self.cache.plan_uses(uses)

    @rule(file=files, pinned=st.booleans())
    def pin(self, file: LoraFile, pinned: bool) -> None:
        (self.pins.add if pinned else self.pins.discard)(file.key)
        (self.cache.pin if pinned else self.cache.unpin)(file.key)

    @rule(limit_bytes=st.integers(0, 9000))
    def resize(self, limit_bytes: int) -> None:
        before = self.resident()
        self.cache.resize(limit_bytes)
        self.judge(before)


TestPolicies = PolicyMachine.TestCase
TestPolicies.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def victims_of(
    policy: EvictionPolicy, demands: Sequence[LoraFile], slots: int, window: int
) -> list[tuple[int, AdapterKey]]:
    """`(position, victim)` of each eviction while `demands`, all of one size, come one by one."""
    cache, _ = make_cache(slots * 1000, policy)
    gone: list[tuple[int, AdapterKey]] = []
    for position, file in enumerate(demands):
        uses: dict[AdapterKey, int] = {}
        for distance, coming in enumerate(demands[position : position + window]):
            uses.setdefault(coming.key, distance)
        cache.plan_uses(uses)
        before = {view.key for view in cache.snapshot().adapters}
        cache.acquire(file).release()
        gone += [(position, key) for key in before - {view.key for view in cache.snapshot().adapters}]
    return gone


@given(st.lists(st.sampled_from(EQUAL), max_size=60), st.integers(1, 6), st.integers(1, 20))
def test_next_use_takes_what_belady_takes_within_the_window(demands: list[LoraFile], slots: int, window: int) -> None:
    resident: set[AdapterKey] = set()
    gone = dict(victims_of(NextUse(), demands, slots, window))
    for position, file in enumerate(demands):
        if file.key not in resident and len(resident) == slots:
            ahead = [coming.key for coming in demands[position : position + window]]
            distances = {key: ahead.index(key) if key in ahead else window for key in resident}
            assert distances[gone[position]] == max(distances.values())
            resident.discard(gone.pop(position))
        resident.add(file.key)
    assert not gone


@given(st.lists(st.sampled_from(EQUAL), max_size=60), st.integers(1, 6))
def test_with_the_whole_future_in_view_next_use_misses_as_seldom_as_belady(demands: list[LoraFile], slots: int) -> None:
    keys = [file.key for file in demands]
    times = {key: [i for i, other in enumerate(keys) if other == key] for key in keys}
    resident: set[AdapterKey] = set()
    misses = 0
    for now, key in enumerate(keys):
        if key in resident:
            continue
        misses += 1
        if len(resident) == slots:
            coming = {k: times[k][bisect_right(times[k], now) :] or [math.inf] for k in resident}
            resident.remove(max(resident, key=lambda k: coming[k][0]))
        resident.add(key)
    gone = victims_of(NextUse(), demands, slots, len(demands) + 1)
    assert misses == len(gone) + min(slots, len(set(keys)))


class Watched(Gdsf):
    """Remembers what each adapter was worth when it was last ranked."""

    def __init__(self) -> None:
        self.worths: dict[AdapterKey, float] = {}

    def rank(self, candidate: Candidate) -> tuple[float, ...]:
        self.worths[candidate.key] = self.worth(candidate)
        return super().rank(candidate)


@given(st.lists(files, max_size=80), st.integers(5000, 9000))
def test_with_gdsf_the_idle_age(demands: list[LoraFile], limit_bytes: int) -> None:
    """What goes is never worth less than what went before, so that nothing stays for its past alone."""
    policy = Watched()
    cache, _ = make_cache(limit_bytes, policy)
    least = 0.0
    for file in demands:
        before = {view.key for view in cache.snapshot().adapters}
        cache.acquire(file).release()
        gone = [policy.worths[key] for key in before - {view.key for view in cache.snapshot().adapters}]
        assert all(worth >= least for worth in gone)
        least = max([least, *gone])


@pytest.mark.parametrize("policy", list(MODELS))
def test_a_guess_goes_first_under_every_policy(policy: type[EvictionPolicy]) -> None:
    """Brought in last, the dearest to read and as small as any: it still goes before what somebody has used."""
    cache, _ = make_cache(3000, policy())
    used, other, guess, coming = EQUAL[:4]
    for file in (used, other):
        cache.acquire(file).release()
    assert cache.prefetch(guess) == "ready"
    cache.record_cold_read(guess.key, 1e6)
    assert cache.prefetch(EQUAL[5]) == "no_room"
    cache.acquire(coming).release()
    assert {view.key for view in cache.snapshot().adapters} == {used.key, other.key, coming.key}
