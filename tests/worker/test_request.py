"""Lines of a queue: every form that is read, every one that is reported."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from warmstack.lora.stacks.stack import LoraRow
from warmstack.worker.request import MalformedLine, QueueRequest, parse_queue, read_queue


def one(line: object) -> QueueRequest:
    (request,) = parse_queue([json.dumps(line)])
    assert isinstance(request, QueueRequest), request
    return request


def test_object_form() -> None:
    models = ["wash", {"name": "ink", "weight": 0.8, "category": "styles"}]
    request = one(
        {
            "id": "a",
            "prompt": "a fox <lora:grain:0.4>",
            "seed": 3,
            "steps": 5,
            "lora": {"enabled": True, "global_weight": 0.5, "models": models},
        }
    )
    assert (request.id, request.prompt, request.seed, request.steps) == ("a", "a fox", 3, 5)
    assert request.stack.rows == (
        LoraRow("wash", 0.5, 0.5),
        LoraRow("ink", 0.4, 0.4, "styles"),
        LoraRow("grain", 0.4, 0.4),
    )


def test_category_weights_reach_rows_that_name_no_category() -> None:
    line = json.dumps({"prompt": "x", "lora": {"category_weights": {"styles": 0.5}, "models": ["ink"]}})
    (request,) = parse_queue([line], {"ink": "styles"}.__getitem__)
    assert isinstance(request, QueueRequest)
    assert request.stack.rows[0].strength_model == 0.5


def test_switched_off_request_has_no_loras() -> None:
    assert one({"prompt": "x", "lora": {"enabled": False, "models": ["ink"]}}).stack.rows == ()


@pytest.mark.parametrize("lora", ["ink", ["ink"], [{"name": "ink"}], "<lora:ink:1>", {"models": ["ink"]}])
def test_lora_may_be_a_name_rows_tags_or_a_request(lora: object) -> None:
    assert [row.name for row in one({"prompt": "x", "lora": lora}).stack.rows] == ["ink"]


def test_string_form_is_a_prompt_with_tags() -> None:
    request = one("a heron <lora:ink:0.6:0.2>")
    assert request.prompt == "a heron"
    assert request.stack.rows == (LoraRow("ink", 0.6, 0.2),)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "cut', "not JSON at column 12: Unterminated string"),
        ("[1, 2]", "neither an object nor a string"),
        ("3", "neither an object nor a string"),
        ('{"seed": 1}', "prompt"),
        ('{"prompt": "x", "seed": -1}', "seed"),
        ('{"prompt": "x", "width": 100}', "width"),
        ('{"prompt": "x", "promt": "y"}', "promt"),
        ('{"prompt": "x", "lora": {"modles": []}}', "models"),
        ('{"prompt": "x", "lora": 4}', "names no LoRA"),
        ('{"prompt": "x", "lora": [{"name": "a", "weight": "much"}]}', "much"),
    ],
)
def test_malformed_lines_are_reported_with_their_number_and_reason(line: str, reason: str) -> None:
    good, bad = parse_queue(['"fine"', "", line])
    assert isinstance(good, QueueRequest)
    assert isinstance(bad, MalformedLine)
    assert bad.line == 3
    assert reason in bad.reason
    assert "\n" not in bad.reason


@example(ids=["a-3", "a", "a"])
@given(ids=st.lists(st.text(max_size=12) | st.integers(), max_size=8))
def test_ids_are_unique_and_safe_as_file_names(ids: list[str | int]) -> None:
    requests = parse_queue(json.dumps({"prompt": "x", "id": written}) for written in ids)
    names = [request.id for request in requests if isinstance(request, QueueRequest)]
    assert len(set(names)) == len(ids)
    for name in names:
        assert Path(name).name == name
        assert name not in (".", "..")


def test_a_line_separator_inside_a_string_does_not_split_the_line(tmp_path: Path) -> None:
    path = tmp_path / "queue.jsonl"
    path.write_text('"one\u2028two"\n"three"\n', encoding="utf-8")
    assert [line.line for line in read_queue(path)] == [1, 2]


def test_a_queue_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "queue.jsonl"
    path.write_text('"one"\n', encoding="utf-8-sig")
    assert [type(line) for line in read_queue(path)] == [QueueRequest]


def picture_names(*ids: str) -> list[str]:
    requests = parse_queue(json.dumps({"prompt": "x", "id": written}) for written in ids)
    return [request.image for request in requests if isinstance(request, QueueRequest)]


@example(ids=["Fox", "fox", "fox-2"])
@example(ids=["\u00e9", "e\u0301"])
@example(ids=["\u00df", "ss", "SS"])
@example(ids=["\u0390", "\u1fd3"])
@given(ids=st.lists(st.text(max_size=4), max_size=8))
def test_pictures_are_different_files_wherever_case_and_accents_do_not_count(ids: list[str]) -> None:
    names = picture_names(*ids)
    folded = {unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()) for name in names}
    assert len(folded) == len(ids)


@pytest.mark.parametrize("written", ["nul", "CON", "com1", "Lpt9.tiff", "aux.tar.gz", "con .x", "COM\u00b9"])
def test_no_picture_has_the_name_of_a_device(written: str) -> None:
    (name,) = picture_names(written)
    assert name.partition(".")[0].rstrip().upper() not in {"CON", "NUL", "COM1", "LPT9", "AUX", "COM\u00b9"}


def test_names_that_only_look_reserved_stay() -> None:
    assert picture_names("console", "com", "com10", "null") == ["console.png", "com.png", "com10.png", "null.png"]


def test_a_number_of_too_many_digits_is_a_malformed_line() -> None:
    digits = "1" * 5000
    good, bad = parse_queue(['"fine"', f'{{"prompt": "x", "seed": {digits}}}'])
    assert isinstance(good, QueueRequest)
    assert isinstance(bad, MalformedLine)
    assert len(bad.reason) < 200


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity"])
@pytest.mark.parametrize("field", ["guidance_scale", "seed", "steps", "width", "height", "lora"])
def test_no_number_of_a_request_is_infinite(field: str, number: str) -> None:
    value = f'{{"models": [{{"name": "ink", "weight": {number}}}]}}' if field == "lora" else number
    good, bad = parse_queue(['"fine"', f'{{"prompt": "x", "{field}": {value}}}'])
    assert isinstance(good, QueueRequest)
    assert isinstance(bad, MalformedLine)
    assert "finite" in bad.reason


@pytest.mark.parametrize(
    "line",
    [
        r'"a \ud83d fox"',
        r'{"prompt": "\ude00"}',
        r'{"prompt": "x", "negative_prompt": "\ud800"}',
    ],
)
def test_half_a_character_in_a_prompt_is_a_malformed_line(line: str) -> None:
    """No tokenizer takes it."""
    good, bad = parse_queue([r'"a \ud83d\ude00 fox"', line])
    assert isinstance(good, QueueRequest)
    assert good.prompt == "a \N{GRINNING FACE} fox"
    assert isinstance(bad, MalformedLine)
    assert "half of a character" in bad.reason
    assert bad.reason.isprintable()


def test_a_file_whose_name_is_not_utf_8_can_be_asked_for() -> None:
    lines = parse_queue(
        [r'{"prompt": "x", "lora": ["caf\udce9"]}', r'"x <lora:caf\udce9:0.5>"', r'{"prompt": "x", "id": "\ud800"}']
    )
    assert [line.stack.rows for line in lines[:2] if isinstance(line, QueueRequest)] == [
        (LoraRow("caf\udce9"),),
        (LoraRow("caf\udce9", 0.5, 0.5),),
    ]
    assert isinstance(lines[2], QueueRequest)
    assert lines[2].image.isascii()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('"a fox"'.encode("utf-16"), "is not UTF-8"),
        ('"caf\u00e9"'.encode("latin-1"), "is not UTF-8"),
        (b'[\n{"prompt": "a"},\n{"prompt": "b"}\n]\n', "is one JSON list"),
        (b' [{"prompt": "a"}, "b"]', "is one JSON list"),
    ],
    ids=["utf-16", "latin-1", "list", "list on one line"],
)
def test_a_file_that_is_no_queue_is_refused_with_its_name_and_the_cure(
    written: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "queue.jsonl"
    path.write_bytes(written)
    with pytest.raises(ValueError, match=rf"queue\.jsonl {said}.*; (save|write) "):
        read_queue(path)


def test_a_line_that_is_a_list_is_its_own_fault_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.jsonl"
    path.write_bytes(b'["a"]\r\n"b"\r"c"\n["d"')
    assert [type(line) for line in read_queue(path)] == [MalformedLine, QueueRequest, QueueRequest, MalformedLine]
