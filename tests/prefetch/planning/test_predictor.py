"""LoRAPrefetchPredictor: habits are learned, chance is not acted upon."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.prefetch.planning.predictor import LEAST_CHECKED, LoRAPrefetchPredictor

STACKS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=60)


def trained(history: list[list[str]]) -> LoRAPrefetchPredictor:
    predictor = LoRAPrefetchPredictor()
    predictor.learn(history)
    return predictor


def test_the_current_stack_is_expected_to_go_on() -> None:
    predictor = LoRAPrefetchPredictor()
    assert predictor.predict_next_loras() == []
    predictor.record(["a", "b", "a"])
    assert predictor.predict_next_loras() == ["a", "b"]
    assert predictor.predict_next_loras(["x"], limit=5) == ["x"]


def test_what_used_to_follow_comes_before_what_is_merely_frequent() -> None:
    predictor = trained([["often"], ["sketch"], ["ink"], ["often"]] * 20)
    assert predictor.stats().active
    assert predictor.predict_next_loras(["sketch"])[:3] == ["sketch", "ink", "often"]
    assert predictor.predict_next_loras(["ink"])[:2] == ["ink", "often"]


def test_recent_habits_outweigh_old_ones() -> None:
    predictor = trained([["former"], ["base"]] * 60 + [["new"], ["base"]] * 60)
    names = predictor.predict_next_loras(["elsewhere"])
    assert "new" in names
    assert "former" not in names


def test_chance_is_not_acted_upon_and_habits_bring_it_back() -> None:
    rng = random.Random(1)
    predictor = trained([[str(rng.randrange(100))] for _ in range(1000)])
    assert not predictor.stats().active
    assert predictor.predict_next_loras(["1"]) == ["1"]
    predictor.learn([["a"], ["b"]] * 60)
    assert predictor.stats().active
    assert predictor.predict_next_loras(["a"])[:2] == ["a", "b"]


def test_each_guess_is_acted_upon_as_far_as_its_rank_came_true() -> None:
    """After every sketch comes the ink, and with both of them something that never comes back."""
    history = [[step, f"{step}{i}"] for i in range(60) for step in ("sketch", "ink")]
    predictor = trained(history)
    assert predictor.stats().reach == 1
    assert predictor.stats().hit_rate == pytest.approx(1.0)
    assert predictor.predict_next_loras(["sketch"]) == ["sketch", "ink"]
    assert predictor.predict_next_loras(["sketch"], limit=1) == ["sketch"]


def test_what_was_used_together_comes_back_together() -> None:
    """Neither ever followed the other, and what follows both is never the same."""
    predictor = trained([s for i in range(60) for s in (["duo", "partner"], [f"once{i}"], ["often"], ["often"])])
    assert predictor.predict_next_loras(["duo"])[:2] == ["duo", "partner"]


def test_nothing_is_acted_upon_before_it_was_checked() -> None:
    predictor = trained([["a"], ["b"]] * 2)
    stats = predictor.stats()
    assert (stats.active, stats.checked < LEAST_CHECKED) == (False, True)
    assert LoRAPrefetchPredictor().stats().hit_rate is None


def test_memory_is_bounded_and_favourites_survive() -> None:
    predictor = LoRAPrefetchPredictor(max_names=100)
    for i in range(1000):
        predictor.record([f"once{i}", "favourite"])
    assert len(predictor._weights) <= 100
    assert len(predictor._followers) + len(predictor._partners) <= 2 * 100 * 100
    assert "favourite" in predictor._weights


def test_thousands_of_jobs_do_not_overflow() -> None:
    predictor = trained([["a"], ["b"]] * 10_000)
    assert predictor.predict_next_loras(["a"]) == ["a", "b"]
    assert predictor.stats().hit_rate == pytest.approx(1.0)


@given(STACKS, st.lists(st.sampled_from("abcdefghx"), max_size=4), st.integers(0, 9))
def test_predictions_are_distinct_known_and_limited(history: list[list[str]], current: list[str], limit: int) -> None:
    predictor = trained(history)
    names = predictor.predict_next_loras(current, limit)
    assert len(names) == len(set(names)) <= limit
    assert set(names) <= {name for stack in history for name in stack} | set(current)
    assert predictor.predict_next_loras(current, limit) == names
    stats = predictor.stats()
    assert 0 <= stats.hits <= stats.checked
