from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.errors import LoraSyntaxError
from warmstack.lora.stacks.row import LoraRow
from warmstack.lora.stacks.stack import LoraStack

WEIGHTS = st.floats(-100, 100)


def test_weights_multiply() -> None:
    stack = LoraStack.from_request(
        {
            "prompt": "a cat",
            "lora": {
                "enabled": True,
                "global_weight": "0.5",
                "category_weights": {"Styles": 0.5, "characters": 0.1, "characters/anime": 2},
                "models": [
                    {"name": "ink", "weight": 0.8, "category": "styles"},
                    {"name": "mia", "strength_model": 1, "strength_clip": 0.5, "category": "characters/anime/90s"},
                    {"name": "bob", "category": "characters/photo"},
                    {"name": "odd", "category": "characters2"},
                    "plain",
                ],
            },
        }
    )
    assert [(row.name, row.strength_model, row.strength_clip) for row in stack] == [
        ("ink", pytest.approx(0.2), pytest.approx(0.2)),
        ("mia", 1.0, 0.5),
        ("bob", pytest.approx(0.05), pytest.approx(0.05)),
        ("odd", 0.5, 0.5),
        ("plain", 0.5, 0.5),
    ]


def test_rows_without_category_take_that_of_the_catalog() -> None:
    request = {"category_weights": {"styles": 0.5}, "models": ["ink", {"name": "mia", "category": "characters"}]}
    stack = LoraStack.from_request(request, {"ink": "styles", "mia": "styles"}.__getitem__)
    assert stack.rows == (LoraRow("ink", 0.5, 0.5), LoraRow("mia", 1.0, 1.0, "characters"))


@pytest.mark.parametrize(
    ("written", "of_row"),
    [
        ("characters\\anime", "characters/anime"),
        ("characters", "characters\\anime"),
        (" /Characters//Anime/ ", "./characters/anime/90s"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}/x"),
        ("CAFE\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
def test_a_category_is_the_same_however_it_is_written(written: str, of_row: str) -> None:
    weights = {"category_weights": {written: 0.5}}
    named = LoraStack.from_request({**weights, "models": [{"name": "mia", "category": of_row}]})
    looked_up = LoraStack.from_request({**weights, "models": ["mia"]}, {"mia": of_row}.__getitem__)
    assert named.rows == (LoraRow("mia", 0.5, 0.5, of_row),)
    assert looked_up.rows == (LoraRow("mia", 0.5, 0.5),)


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_order_of_multiplication_is_fixed(written: float, everywhere: float, category: float) -> None:
    request = {
        "global_weight": everywhere,
        "category_weights": {"c": category},
        "models": [{"name": "x", "weight": written, "category": "c"}],
    }
    (row,) = LoraStack.from_request(request)
    assert row.strength_model == row.strength_clip == written * (everywhere * category)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"lora": None},
        {"lora": {}},
        {"models": []},
        {"lora": []},
        {"lora": {"enabled": False, "models": ["a"]}},
        {"lora": {"enabled": "false", "models": ["a"]}},
        {"models": [{"name": "a", "enabled": False}]},
    ],
)
def test_nothing_asked_for_is_the_empty_stack(request_: dict[str, object]) -> None:
    assert LoraStack.from_request(request_) == LoraStack()


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        ([], ("not an object",)),
        ({"lora": "a"}, ("'a'", "not an object")),
        ({"lora": {"modles": ["a"]}}, ("modles", "'models'")),
        ({"models": "a"}, ("'a'", "not a list")),
        ({"models": [{"nmae": "a"}]}, ("model 1", "nmae")),
        ({"models": ["a", {"name": "b", "weight": None, "strength": "x"}]}, ("model 2", "b", "'x'")),
        ({"models": ["a"], "global_weight": True}, ("global_weight", "True")),
        ({"models": ["a"], "global_weight": math.nan}, ("global_weight", "nan")),
        ({"models": ["a"], "enabled": 2}, ("enabled", "2")),
        ({"models": ["a"], "category_weights": [1]}, ("category_weights", "[1]")),
        ({"models": ["a"], "category_weights": {"c": "much"}}, ("'c'", "much")),
        ({"models": ["a"], "category_weights": {"": 0.5}}, ("''", "no category")),
        ({"models": ["a"], "category_weights": {"Styles": 1, "styles/": 0.5}}, ("'styles/'", "contradict")),
        ({"models": [["a", 1e300]], "global_weight": 1e300}, ("'a'", "infinite")),
    ],
)
def test_broken_requests_are_refused_by_part(request_: object, parts: tuple[str, ...]) -> None:
    with pytest.raises(LoraSyntaxError) as caught:
        LoraStack.from_request(request_)
    for part in parts:
        assert part in str(caught.value)
