"""Counted waits: quantiles bound the true ones, differences are those of what came between."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.cache.waits import BOUNDS_S, Waits, WaitTally

seconds = st.floats(0, 300) | st.sampled_from([*BOUNDS_S, 0.0])


def counted(waits_s: list[float]) -> Waits:
    tally = WaitTally()
    for wait_s in waits_s:
        tally.count(wait_s)
    return tally.waits()


@given(st.lists(seconds, min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_true_one_to_the_next_bound(waits_s: list[float], share: float) -> None:
    true_s = sorted(waits_s)[max(1, math.ceil(share * len(waits_s))) - 1]
    shown_s = counted(waits_s).quantile_s(share)
    assert shown_s is not None
    assert true_s <= shown_s <= max(waits_s)
    assert shown_s <= next((bound for bound in BOUNDS_S if bound >= true_s), math.inf)


@given(st.lists(seconds), st.lists(seconds), st.sampled_from([0.5, 0.99]))
def test_what_came_before_does_not_count(before_s: list[float], after_s: list[float], share: float) -> None:
    waits = counted([*before_s, *after_s]).since(counted(before_s))
    assert waits.demands == len(after_s)
    assert waits.counts == counted(after_s).counts
    shown_s, alone_s = waits.quantile_s(share), counted(after_s).quantile_s(share)
    assert (shown_s is None) == (alone_s is None)
    assert shown_s is None or alone_s is None or shown_s >= alone_s


def test_without_demands_there_is_no_quantile() -> None:
    assert Waits().quantile_s(0.99) is None
