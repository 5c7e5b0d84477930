"""Who goes first: what nobody has asked for, then what is used furthest away. A prefetch harms nobody sooner."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.cache.policies import Candidate, NextUse
from warmstack.lora.cache.victims import choose_victims, eviction_order, yields_to_prefetch
from warmstack.lora.library.file import AdapterKey

next_uses = st.none() | st.integers(0, 20)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    seconds = st.floats(0, 9)
    facts = st.tuples(st.integers(1, 50), next_uses, seconds, seconds, st.integers(0, 3), seconds)
    return [Candidate(AdapterKey(str(i), 1, 1), *fact) for i, fact in enumerate(draw(st.lists(facts, max_size=12)))]


@given(candidates())
def test_the_next_use_decides_before_the_past(pool: list[Candidate]) -> None:
    order = eviction_order(pool, NextUse())
    distances = [float("inf") if c.next_use is None else c.next_use for c in order]
    assert distances == sorted(distances, reverse=True)
    unplanned = [(c.uses > 0, c.age + c.cold_read_s / c.nbytes, c.last_used_s) for c in order if c.next_use is None]
    assert unplanned == sorted(unplanned)


@given(candidates(), st.integers(-5, 400))
def test_just_enough_is_given_up(pool: list[Candidate], needed_bytes: int) -> None:
    victims = choose_victims(pool, needed_bytes, NextUse())
    assert victims == eviction_order(pool, NextUse())[: len(victims)]
    freed_bytes = sum(victim.nbytes for victim in victims)
    assert freed_bytes >= needed_bytes or len(victims) == len(pool)
    assert not victims or freed_bytes - victims[-1].nbytes < needed_bytes


@given(next_uses, next_uses)
def test_a_prefetch_displaces_only_what_is_needed_later(theirs: int | None, ours: int | None) -> None:
    candidate = Candidate(AdapterKey("a", 1, 1), 1, theirs, 0.0, 0.0, 1, 0.0)
    if ours is None:
        assert not yields_to_prefetch(candidate, ours)
    else:
        assert yields_to_prefetch(candidate, ours) == (theirs is None or theirs > ours)
