"""Every eviction policy against its definition in the literature, and what is to come of it in the real cache."""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.cache.policies import Candidate, EvictionPolicy, Gdsf, Lfu, Lru, NextUse
from warmstack.lora.library.file import AdapterKey, LoraFile

from .weightless import make_cache, sparse_file

FOLDER = tempfile.TemporaryDirectory()
SIZES = (1000, 2000, 3000, 1000, 5000, 2000)
FILES = [sparse_file(Path(FOLDER.name), f"mixed{i}", size) for i, size in enumerate(SIZES)]
EQUAL = [sparse_file(Path(FOLDER.name), f"equal{i}", 1000) for i in range(8)]
files = st.sampled_from(FILES)


Rank = Callable[[Candidate], tuple[float, ...]]

# As the literature has them; among equals the least recently used goes.
TEXTBOOK: dict[type[EvictionPolicy], Rank] = {
    NextUse: lambda c: (
        -math.inf if c.next_use is None else -c.next_use,
        c.age + c.cold_read_s / c.nbytes,
        c.last_used_s,
    ),
    Lru: lambda c: (c.last_used_s,),
    Lfu: lambda c: (c.uses, c.last_used_s),
    Gdsf: lambda c: (c.age + c.uses / c.nbytes, c.last_used_s),
}


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    """Facts of few values, so that some tie and the next one decides."""
    few, next_uses = st.integers(0, 3), st.none() | st.integers(0, 2)
    facts = st.tuples(st.integers(1, 4), next_uses, few, few, few, st.integers(0, 9))
    drawn = draw(st.lists(facts, max_size=12))
    return [Candidate(AdapterKey(str(i), 1, 1), *fact) for i, fact in enumerate(drawn)]


@pytest.mark.parametrize("policy", list(TEXTBOOK))
@given(pool=pools())
def test_a_policy_ranks_as_the_textbook_does(policy: type[EvictionPolicy], pool: list[Candidate]) -> None:
    assert sorted(pool, key=policy().rank) == sorted(pool, key=TEXTBOOK[policy])


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


@pytest.mark.parametrize("policy", list(TEXTBOOK))
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
