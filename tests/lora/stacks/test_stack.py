from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.errors import LoraSyntaxError
from warmstack.lora.stacks.stack import LoraRow, LoraStack, parse_stack

STRENGTHS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1).map(str.strip).filter(lambda name: name and name.lower() not in ("none", "[none]"))
CATEGORIES = st.text(max_size=8).map(str.strip)
TARGETS = st.sampled_from(["", "transformer_2"])
ROWS = st.lists(st.builds(LoraRow, NAMES, STRENGTHS, STRENGTHS, CATEGORIES, target=TARGETS), max_size=6).map(tuple)
FIELDS = st.sampled_from(
    ["lora", "name", "strength", "strength_clip", "on", "models", "global_weight", "category_weights", "enabled"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(ROWS)
def test_rows_round_trip(rows: tuple[LoraRow, ...]) -> None:
    fields = ("name", "strength_model", "strength_clip", "category", "target")
    written = [{field: getattr(row, field) for field in fields} for row in rows]
    assert LoraStack.from_rows(written) == LoraStack(rows) == parse_stack(json.dumps(written))


@given(ROWS)
def test_tuples_round_trip(rows: tuple[LoraRow, ...]) -> None:
    stack = LoraStack(tuple(LoraRow(row.name, row.strength_model, row.strength_clip) for row in rows))
    assert LoraStack.from_tuples(stack.to_tuples()) == stack


@given(JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    for read in (
        LoraStack.from_request,
        lambda value: parse_stack(json.dumps(value)),
        lambda value: LoraStack.from_rows([value]),
    ):
        try:
            stack = read(value)
        except LoraSyntaxError as error:
            assert "\n" not in str(error)
        else:
            assert all(math.isfinite(row.strength_model) and math.isfinite(row.strength_clip) for row in stack)


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ("ink", LoraRow("ink")),
        (["ink", 0.5], LoraRow("ink", 0.5, 0.5)),
        (("ink", "0.5", -1), LoraRow("ink", 0.5, -1.0)),
        (
            {"name": " ink ", "strength": 0.5, "clipStrength": "0.25", "active": True, "locked": False},
            LoraRow(" ink ", 0.5, 0.25),
        ),
        ({"on": True, "lora": "ink", "strength": 0.5, "strengthTwo": None}, LoraRow("ink", 0.5, 0.5)),
        ({"lora_name": "ink", "strength_model": 0.5, "strength_clip": 0}, LoraRow("ink", 0.5, 0.0)),
        ({"name": "ink", "weight": 0.5, "category": "styles"}, LoraRow("ink", 0.5, 0.5, "styles")),
        ({"name": "ink", "target": " transformer_2"}, LoraRow("ink", target="transformer_2")),
        ({"name": "ink", "strength_clip": 0.5, "enabled": 1}, LoraRow("ink", 1.0, 0.5)),
        ({"name": "ink", "weight": 1, "strength": 1.0}, LoraRow("ink", 1.0, 1.0)),
    ],
)
def test_row_shapes(entry: object, row: LoraRow) -> None:
    assert LoraStack.from_rows([entry]).rows == (row,)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "None",
        {"on": False, "lora": "x"},
        {"name": "x", "active": "off"},
        {"lora": None},
        ["None", 1],
        {"name": "x", "on": 0},
    ],
)
def test_rows_that_are_off_or_empty_are_left_out(entry: object) -> None:
    assert LoraStack.from_rows(["a", entry, "b"]).rows == (LoraRow("a"), LoraRow("b"))


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"name": "ink", "strenght": 0.5}, ("row 2", "strenght", "'strength'")),
        ({"name": "ink", "strength": True}, ("row 2", "ink", "True")),
        ({"name": "ink", "strength": math.nan}, ("ink", "nan")),
        ({"name": "ink", "strength": "inf"}, ("ink", "inf")),
        ({"name": "ink", "strength": 10**400}, ("ink", "finite")),
        ({"name": "ink", "strength": [0.5]}, ("ink", "[0.5]")),
        ({"name": "ink", "strength": 1, "weight": 0.5}, ("strength", "weight", "contradict")),
        ({"name": "ink", "on": "maybe"}, ("on", "maybe")),
        ({"name": "ink", "category": 3}, ("ink", "category", "3")),
        ({"name": "ink", "target": 2}, ("ink", "target", "2")),
        ({"strength": 1}, ("row 2", "names no LoRA")),
        ({"name": 3}, ("row 2", "3")),
        ("  ", ("row 2", "empty")),
        (7, ("row 2", "7")),
        (["ink"], ("row 2", "1 parts")),
        (["ink", 1, 1, 1], ("row 2", "4 parts")),
    ],
)
def test_broken_rows_are_refused_by_number_and_part(entry: object, parts: tuple[str, ...]) -> None:
    with pytest.raises(LoraSyntaxError) as caught:
        LoraStack.from_rows(["fine", entry])
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "stack", ["ink", ["ink"], [("ink", 1)], [("ink", 1, 1, 1)], [{"name": "ink"}], [("ink", True, 1)]]
)
def test_a_lora_stack_is_made_of_triples(stack: list[object]) -> None:
    with pytest.raises(LoraSyntaxError, match="LORA_STACK entry 1"):
        LoraStack.from_tuples(stack)


def test_an_unconnected_lora_stack_is_empty() -> None:
    assert LoraStack.from_tuples(None) == LoraStack() == LoraStack.from_tuples([("None", 1, 1)])


def test_a_lora_that_stands_twice_counts_twice_in_order() -> None:
    stack = LoraStack.from_rows([["a", 0.5], ["b", 1], ["a", 0.3]])
    assert stack.to_tuples() == [("a", 0.5, 0.5), ("b", 1.0, 1.0), ("a", 0.3, 0.3)]


def test_active_rows_are_those_with_any_strength() -> None:
    stack = LoraStack.from_rows([["a", 0], ["b", 0, 1], ["c", -1, 0], ["d", 0, -0.0]])
    assert [row.name for row in stack.active] == ["b", "c"]
    assert len(stack) == 4


def test_stacks_add_in_order() -> None:
    assert [row.name for row in LoraStack.from_rows(["a", "b"]) + LoraStack.from_rows(["a"])] == ["a", "b", "a"]


def test_warnings_of_rows_are_reported_and_do_not_make_rows_differ() -> None:
    stack = LoraStack.from_tags("<lora:a:1:LBW=X> <lora:b>")
    assert len(stack.warnings) == 1
    assert stack == LoraStack.from_rows(["a", "b"])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", ()),
        (" \n", ()),
        ("None", ()),
        (" [none]\n", ()),
        ("[]", ()),
        ("{}", ()),
        ('["a", ["b", 0.5]]', (LoraRow("a"), LoraRow("b", 0.5, 0.5))),
        ('{"name": "a", "weight": 0.5}', (LoraRow("a", 0.5, 0.5),)),
        ('{"lora": "a", "strength": 0.5}', (LoraRow("a", 0.5, 0.5),)),
        ('{"lora": {"global_weight": 2, "models": ["a"]}}', (LoraRow("a", 2.0, 2.0),)),
        ('{"models": [["a", 1, 0]]}', (LoraRow("a", 1.0, 0.0),)),
        ('{"enabled": false}', ()),
        ("a cat <lora:a:0.5:1>", (LoraRow("a", 0.5, 1.0),)),
        ("[cat:dog:0.5] <lora:a:0.5:1>", (LoraRow("a", 0.5, 1.0),)),
    ],
)
def test_parse_stack_tells_the_forms_apart(text: str, rows: tuple[LoraRow, ...]) -> None:
    assert parse_stack(text).rows == rows


def test_parse_stack_reads_tags_in_the_given_dialect() -> None:
    assert parse_stack("<lora:a:0.5:1>", "a1111").rows == (LoraRow("a", 1.0, 0.5),)


@pytest.mark.parametrize(
    "name",
    [
        "ink.safetensors",
        "styles/ink v1.5",
        "墨 [2]",
        "[XL] ink.safetensors",
        "[styles]/ink.SFT",
        "{x} ink.pt",
        "[1] ink.safetensors",
    ],
)
def test_parse_stack_takes_one_bare_name(name: str) -> None:
    assert parse_stack(f"{name}\n") == LoraStack((LoraRow(name),))
    assert parse_stack(f" {name}") == LoraStack((LoraRow(f" {name}"),)), "a file may be called so"
    assert parse_stack(f" \n {name} \n ") == LoraStack((LoraRow(name),)), "and one line of a report holds it"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (str({"lora": {"models": ["ink"]}}), "as one JSON text"),
        (str([{"name": "ink"}]), "as one JSON text"),
        (str(["ink", "oil"]), "as one JSON text"),
        (str([["ink", 0.8]]), "as one JSON text"),
        ("ink <lora>", "ink <lora>"),
        ("ink\ngrain", "no name"),
        ('[{"name": "a",}]', "column"),
        ("[1, ", "broken"),
        ("[XL] ink", "broken"),
        ("[XL] ink.safetensors\n[XL] oil.safetensors", "broken"),
        ('["ink.safetensors", oil.safetensors', "broken"),
        ('["a", NaN]', "NaN"),
        ('{"lroa": {"models": []}}', "lroa"),
        ('{"models": [], "global_wieght": 1}', "did you mean 'global_weight'"),
        ('{"prompt": "a cat"}', 'neither "lora" nor "models"'),
        ("[" * 100_000, "cannot be read"),
        ('["a", ' + "[" * 900 + "]" * 901, "row 2"),
    ],
)
def test_parse_stack_refuses_what_it_cannot_read(text: str, part: str) -> None:
    with pytest.raises(LoraSyntaxError) as caught:
        parse_stack(text)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 400
