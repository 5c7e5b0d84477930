from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.errors import LoraSyntaxError
from warmstack.lora.stacks.row import LoraRow
from warmstack.lora.stacks.tags import COMFY, extract_tags, has_tags

STRENGTHS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = (
    st.text(st.characters(exclude_characters="<>:\r\n", exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(bool)
)
ROWS = st.lists(st.builds(LoraRow, NAMES, STRENGTHS, STRENGTHS), max_size=6)


def written(rows: list[LoraRow], syntax: str = COMFY) -> str:
    both = [(row.strength_model, row.strength_clip)[:: 1 if syntax == COMFY else -1] for row in rows]
    return " ".join(f"<lora:{row.name}:{first!r}:{second!r}>" for row, (first, second) in zip(rows, both, strict=True))


@pytest.mark.parametrize(
    ("tag", "comfy", "a1111"),
    [
        # (strength_model, strength_clip) in either dialect
        ("<lora:x>", (1.0, 1.0), (1.0, 1.0)),
        ("<lora:x:0.8>", (0.8, 0.8), (0.8, 0.8)),
        ("<lora:x:0.8:0.4>", (0.8, 0.4), (0.4, 0.8)),
        ("<lora:x:te=0.5>", (1.0, 0.5), (0.5, 0.5)),
        ("<lora:x:unet=0.5>", (0.5, 1.0), (0.5, 1.0)),
        ("<lora:x:0.8:te=0.5>", (0.8, 0.5), (0.5, 0.5)),
        ("<lora:x:te=0.5:unet=1>", (1.0, 0.5), (1.0, 0.5)),
        ("<lora:x:-1.5>", (-1.5, -1.5), (-1.5, -1.5)),
        ("<lora:x:.5:5.>", (0.5, 5.0), (5.0, 0.5)),
        ("<LyCO: x : 1e-1 >", (0.1, 0.1), (0.1, 0.1)),
    ],
)
def test_dialects(tag: str, comfy: tuple[float, float], a1111: tuple[float, float]) -> None:
    for syntax, strengths in (("comfy", comfy), ("a1111", a1111)):
        (row,) = extract_tags(tag, syntax)[1]
        assert row.name == "x"
        assert (row.strength_model, row.strength_clip) == strengths
        assert not row.warning


@pytest.mark.parametrize("name", ["ink v1.5", "styles/ink.safetensors", "styles\\ink", "a=b", "名前", "x (2) [v3] {4}"])
def test_names_are_kept_as_written(name: str) -> None:
    cleaned, (row,) = extract_tags(f"a cat, <lora:{name}:0.7>, ink")
    assert (row.name, row.strength_model, cleaned) == (name, 0.7, "a cat, , ink")


def test_rank_override_takes_no_effect_and_is_said() -> None:
    for tag in ("<lora:x:1:0.5:16>", "<lora:x:1:0.5:dyn=16>"):
        (row,) = extract_tags(tag, "a1111")[1]
        assert (row.strength_clip, row.strength_model) == (1.0, 0.5)
        assert "16" in row.warning


@pytest.mark.parametrize(
    "extra", ["LBW=MIDD;A=0;B=1;", "lbw=OUTALL", "MIDD", "ALL0.5", "1,0,0,0,1,1,0.5", "stop=10", "cache=always"]
)
@pytest.mark.parametrize("syntax", ["comfy", "a1111"])
def test_block_weights_take_no_effect_and_are_said(extra: str, syntax: str) -> None:
    (row,) = extract_tags(f"<lora:x:0.5:{extra}>", syntax)[1]
    assert (row.strength_model, row.strength_clip) == (0.5, 0.5)
    assert extra in row.warning


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a <lora:x:0.8", "never closed"),
        ("<lora:x\n:1>", "never closed"),
        ("<lora:a<lora:b:1>", "<lora:a"),
        ("<lora::1>", "names no LoRA"),
        ("<lora:x:>", "''"),
        ("<lora:x:0,8>", "0,8"),
        ("<lora:x:high>", "high"),
        ("<lora:x:nan>", "nan"),
        ("<lora:x:NAN>", "NAN"),
        ("<lora:x:INF>", "INF"),
        ("<lora:x:1e999>", "finite"),
        ("<lora:x:1_0>", "1_0"),
        ("<lora:x:te=>", "te="),
        ("<lora:x:1:1:1:1>", "4 numbers"),
    ],
)
@pytest.mark.parametrize("syntax", ["comfy", "a1111"])
def test_broken_tags_are_refused_by_name(text: str, part: str, syntax: str) -> None:
    with pytest.raises(LoraSyntaxError) as caught:
        extract_tags(text, syntax)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_third_number_is_refused_in_comfy() -> None:
    with pytest.raises(LoraSyntaxError, match="3 numbers"):
        extract_tags("<lora:x:1:1:1>")


def test_unknown_syntax_is_refused() -> None:
    with pytest.raises(LoraSyntaxError, match="'comfy' or 'a1111'"):
        extract_tags("<lora:x>", "forge")


@given(ROWS, st.sampled_from(["comfy", "a1111"]))
def test_round_trip(rows: list[LoraRow], syntax: str) -> None:
    cleaned, again = extract_tags(written(rows, syntax), syntax)
    assert list(again) == rows
    assert not cleaned.strip()
    assert has_tags(written(rows, syntax)) == bool(rows)


@given(st.lists(st.text().filter(lambda text: "<" not in text and ">" not in text), min_size=1, max_size=6), ROWS)
def test_everything_but_the_tags_is_kept(texts: list[str], rows: list[LoraRow]) -> None:
    prompt = texts[0]
    used = list(zip(rows, texts[1:], strict=False))
    for row, text in used:
        prompt += written([row]) + text
    cleaned, again = extract_tags(prompt)
    assert cleaned == texts[0] + "".join(text for _, text in used)
    assert list(again) == [row for row, _ in used]


@given(st.text(alphabet="<lora:xyco>.0123456789=, \n\\/TEte-e"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rows = extract_tags(text)[1]
    except LoraSyntaxError:
        return
    assert all(math.isfinite(row.strength_model) and row.name == row.name.strip() != "" for row in rows)
