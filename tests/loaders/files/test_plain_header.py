"""A header written as every writer puts it is read a shorter way, which must agree with the parser on every text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from warmstack.loaders import SafetensorsValidationError
from warmstack.loaders.files import header
from warmstack.loaders.files.tensor_entry import DTYPE_BITS

PLAIN = (
    b'{"__metadata__":{"a":"b"},"x":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},'
    b'"y":{"dtype":"U8","shape":[],"data_offsets":[12,13]}}  '
)
DATA_BYTES = 13
PIECES = st.sampled_from([b"", b"0", b"1", b",", b":", b'"', b"{", b"}", b"[", b"]", b" ", b"\\", b"-", b".", b"\xff",
                          b"x", b"__metadata__", b"dtype", b"1e1", b"true", b"null", b"\n"])  # fmt: skip


def outcome(raw: bytes, data_bytes: int = DATA_BYTES) -> Any:
    try:
        metadata, tensors = header._content("f", bytearray(raw), data_bytes)
    except SafetensorsValidationError as error:
        return str(error)
    return metadata, list(tensors.items())


def long_way(raw: bytes, data_bytes: int = DATA_BYTES) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "plain_content", lambda path, raw: None)
        return outcome(raw, data_bytes)


@given(place=st.integers(0, len(PLAIN)), cut=st.integers(0, 12), piece=PIECES)
@example(place=PLAIN.index(b'"y"') + 1, cut=1, piece=b"x")
@example(place=PLAIN.index(b'"y"') + 1, cut=1, piece=b"__metadata__")
@example(place=PLAIN.index(b"[2,3]") + 1, cut=1, piece=b"02")
@example(place=PLAIN.index(b',"y"'), cut=1, piece=b"")
@example(place=PLAIN.index(b"  "), cut=2, piece=b"}")
@example(place=PLAIN.rindex(b"}"), cut=0, piece=b",")
@example(place=PLAIN.rindex(b"}"), cut=1, piece=b"]")
@example(place=PLAIN.index(b"12]") + 1, cut=1, piece=b"1")
def test_a_text_that_was_damaged_has_one_outcome(place: int, cut: int, piece: bytes):
    raw = PLAIN[:place] + piece + PLAIN[place + cut :]
    assert outcome(raw) == long_way(raw)


@given(
    kinds=st.lists(
        st.tuples(st.text(max_size=5), st.sampled_from(["F16", "F32", "U8", "F99"]), st.lists(st.integers(-1, 3))),
        max_size=6,
    ),
    metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
def test_whatever_a_writer_names_its_tensors(kinds: list[tuple[str, str, list[int]]], metadata: Any):
    entries, end = {}, 0
    for key, dtype, shape in kinds:
        elements = 1
        for size in shape:
            elements *= size
        start, end = end, end + max(elements, 0) * DTYPE_BITS.get(dtype, 8) // 8
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    document = ({} if metadata is None else {"__metadata__": metadata}) | entries
    for escaped in (True, False):
        raw = json.dumps(document, separators=(",", ":"), ensure_ascii=escaped).encode("utf-8", "surrogatepass")
        assert outcome(raw, end) == long_way(raw, end)


def test_the_short_way_is_taken(monkeypatch: pytest.MonkeyPatch):
    expected = long_way(PLAIN)
    monkeypatch.delattr(header, "_parse")
    assert outcome(PLAIN) == expected
