from __future__ import annotations

import json
import os
import re
import struct
import tracemalloc
from pathlib import Path

import pytest

from warmstack.loaders import (
    SafetensorsCache,
    SafetensorsLoadError,
    SafetensorsValidationError,
    load_pickled,
    load_safetensors_cached,
    map_tensors,
    read_gguf_header,
    read_header,
    read_index,
    read_metadata,
    resident_bytes,
)
from warmstack.loaders.files.header import MAX_HEADER_BYTES
from warmstack.loaders.reading.opened import stamp_path

BYTE = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}


def entry(dtype: object = "U8", shape: object = (1,), offsets: object = (0, 1)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_reads_what_the_library_wrote(saved, state_dict):
    header = read_header(saved)
    assert header.metadata == {"format": "pt", "ss_output_name": "ink"}
    assert header.tensors.keys() == state_dict.keys()
    assert {key: found.shape for key, found in header.tensors.items()} == {
        key: tuple(tensor.shape) for key, tensor in state_dict.items()
    }
    assert header.tensors["block.float8_e4m3fn"].dtype == "F8_E4M3"
    assert header.file_bytes == os.path.getsize(saved)
    assert header.data_bytes == sum(tensor.nbytes for tensor in state_dict.values())
    assert header.mtime_ns == os.stat(saved).st_mtime_ns


def test_tensors_come_in_the_order_of_the_data(write_raw):
    path = write_raw(
        {
            "late": entry(offsets=[2, 3]),
            "empty": entry(shape=[0], offsets=[2, 2]),
            "early": entry(shape=[2], offsets=[0, 2]),
        },
        b"abc",
    )
    assert list(read_header(path).tensors) == ["early", "empty", "late"]


ENTRY = b'{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
LIES = {
    "no tensor map": ([], "not a JSON object"),
    "text": (b"{", "not valid JSON"),
    "not utf-8": (b'{"\xff":{}}', "UnicodeDecodeError"),
    "trailing text": (b'{"a":' + ENTRY + b"} x", "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "raw control character": (b'{"a\n":' + ENTRY + b"}", "not valid JSON"),
    "half a surrogate": (b'{"\\ud800":' + ENTRY + b"}", "surrogate"),
    "NaN": (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', "not valid JSON"),
    "key twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":' + ENTRY + b"}", "'a': stands twice"),
    "field twice": (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "'dtype': stands twice"),
    "three fields, one twice": (b'{"a":{"dtype":"U8","data_offsets":[0,1],"dtype":"U8"}}', "'dtype': stands twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{},"a":' + ENTRY + b"}", "'__metadata__': stands twice"),
    "metadata key twice": (b'{"__metadata__":{"a":"1","a":"2"},"a":' + ENTRY + b"}", "'a': stands twice"),
    "metadata not text": ({"__metadata__": {"a": 1}, "a": BYTE}, "text to text"),
    "metadata a float": ({"__metadata__": {"a": 1.5}, "a": BYTE}, "text to text"),
    "metadata a list": ({"__metadata__": ["a"], "a": BYTE}, "text to text"),
    "metadata a tensor": ({"__metadata__": BYTE, "a": BYTE}, "text to text"),
    "entry null": ({"a": None}, "not a tensor entry"),
    "entry a list": ({"a": ["U8", [1], [0, 1]]}, "not a tensor entry"),
    "dtype missing": ({"a": {"shape": [1], "data_offsets": [0, 1]}}, "needs a dtype|unknown dtype"),
    "shape missing": ({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, "needs a dtype"),
    "offsets missing": ({"a": {"dtype": "U8", "shape": [1]}}, "needs a dtype"),
    "dtype unknown": ({"a": entry(dtype="U7")}, "unknown dtype 'U7'"),
    "dtype a list": ({"a": entry(dtype=["U8"])}, "needs a dtype"),
    "shape null": ({"a": entry(shape=None)}, "needs a dtype"),
    "shape text": ({"a": entry(shape="1")}, "needs a dtype"),
    "shape empty text": ({"a": entry(shape="")}, "needs a dtype"),
    "shape empty object": ({"a": entry(shape={})}, "needs a dtype"),
    "shape of floats": ({"a": entry(shape=[1.0])}, "needs a dtype"),
    "shape of booleans": ({"a": entry(shape=[True])}, "whole numbers"),
    "shape nested": ({"a": entry(shape=[[1]])}, "needs a dtype"),
    "offsets of booleans": ({"a": entry(offsets=[False, True])}, "whole numbers"),
    "offsets of floats": ({"a": entry(offsets=[0.0, 1.0])}, "needs a dtype"),
    "three offsets": ({"a": entry(offsets=[0, 1, 2])}, "needs a dtype"),
    "negative dimension": ({"a": entry(shape=[-1])}, "negative dimension"),
    "two negative dimensions": ({"a": entry(shape=[-1, -1])}, "negative dimension"),
    "negative offset": ({"a": entry(offsets=[-1, 0])}, "overlaps"),
    "offsets backwards": ({"a": entry(shape=[0], offsets=[1, 0])}, "span -1"),
    "bytes do not match": ({"a": entry(shape=[2])}, "needs 2 bytes"),
    "starts late": ({"a": entry(offsets=[1, 2])}, "gap"),
    "gap": ({"a": BYTE, "b": entry(offsets=[2, 3])}, "gap"),
    "overlap": ({"a": BYTE, "b": entry(shape=[2], offsets=[0, 2])}, "overlaps"),
    "same bytes twice": ({"a": BYTE, "b": BYTE}, "overlaps"),
    "size overflows": ({"a": entry(shape=[1 << 33, 1 << 33])}, "overflows"),
    "size overflows beside a zero": ({"a": entry(shape=[0, 1 << 62, 1 << 62], offsets=[0, 0])}, "overflows"),
    "half a byte": ({"a": entry(dtype="F4", shape=[3], offsets=[0, 2])}, "does not end at a byte"),
    "one dimension too many": ({"a": entry(shape=[1] * 65)}, "'a': is said to have 65 dimensions"),
    "no end of dimensions": ({"a": entry(shape=[1] * 100_000)}, "'a': is said to have 100000 dimensions"),
    "data that no tensor has": ({}, "no tensor covers the rest"),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
def test_refuses_a_header_that_lies(write_raw, lie, reason: str):
    path = write_raw(lie, b"\1")
    with pytest.raises(SafetensorsValidationError, match=reason) as caught:
        read_header(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(("download it again", "save it again by another"))


def test_as_many_dimensions_as_numpy_holds(write_raw):
    path = write_raw({"a": entry(shape=[1] * 64)}, b"\1")
    assert map_tensors(path).tensors["a"].numpy().ndim == 64


WRECKS = {
    "nothing": b"",
    "a web page": b"<!DOCTYPE html><html><head><title>Log in</title></head></html>",
    "cut off in the header": struct.pack("<Q", 500) + b'{"a":',
    "no JSON": struct.pack("<Q", 8) + b'{"a": 1x',
    "no object": struct.pack("<Q", 3) + b"[1]",
    "cut off in the data": struct.pack("<Q", 53) + b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}' + b"1",
}


@pytest.mark.parametrize("content", WRECKS.values(), ids=WRECKS.keys())
def test_what_a_broken_download_leaves_is_told_with_the_cure(tmp_path: Path, content: bytes):
    (tmp_path / "wreck.safetensors").write_bytes(content)
    with pytest.raises(SafetensorsValidationError, match="download it again"):
        read_header(tmp_path / "wreck.safetensors")


@pytest.mark.parametrize("data", [b"", b"\1\1"], ids=["truncated", "trailing bytes"])
def test_refuses_data_that_the_tensors_do_not_cover_exactly(write_raw, data):
    with pytest.raises(SafetensorsValidationError, match="tensors take 1 bytes"):
        read_header(write_raw({"a": BYTE}, data))


def test_names_the_tensor_at_fault(write_raw):
    with pytest.raises(SafetensorsValidationError) as caught:
        read_header(write_raw({"fine": BYTE, "at fault": entry(shape=[7], offsets=[1, 2])}, b"ab"))
    assert caught.value.key == "at fault"
    assert "'at fault'" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b'{"a": 1, "twice": 2, "twice": 3}', "twice"),
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', "dtype"),
        ({"whole": BYTE, "cut off": entry(shape=[9], offsets=[1, 10])}, "cut off"),
        (
            {
                "whole": BYTE,
                "not there": entry(shape=[9], offsets=[6, 15]),
                "cut off": entry(shape=[5], offsets=[1, 6]),
            },
            "cut off",
        ),
    ],
    ids=["two tensors", "two fields", "truncated", "truncated, in the order of the data"],
)
def test_the_key_of_a_duplicate_and_of_a_truncated_tensor(write_raw, header: object, key: str):
    with pytest.raises(SafetensorsValidationError) as caught:
        read_header(write_raw(header, b"12345"))
    assert caught.value.key == key
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize("size", range(8))
def test_refuses_a_file_without_room_for_a_header(tmp_path: Path, size: int):
    path = tmp_path / "short.safetensors"
    path.write_bytes(b"\0" * size)
    with pytest.raises(SafetensorsValidationError):
        read_header(path)


@pytest.mark.parametrize("length", [3, MAX_HEADER_BYTES + 1, 1 << 63, (1 << 64) - 1])
def test_refuses_a_length_before_it_allocates(write_raw, length: int):
    path = write_raw(b"{}", length=length)
    tracemalloc.start()
    try:
        with pytest.raises(SafetensorsValidationError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_refuses_a_header_above_the_bound_though_the_file_has_it(tmp_path: Path):
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 9)
    with pytest.raises(SafetensorsValidationError, match="claims a header"):
        read_header(path)


@pytest.mark.parametrize("bomb", [b"[" * 200_000, b'{"a":' * 200_000], ids=["lists", "objects"])
def test_a_nested_bomb_is_an_ordinary_refusal(write_raw, bomb: bytes):
    with pytest.raises(SafetensorsValidationError, match="not valid JSON"):
        read_header(write_raw(bomb))


WIDE_BOMBS = {
    "lists": b'{"a":[' + b"[]," * 3_000_000 + b"0]}",
    "lists as metadata": b'{"__metadata__":[' + b"[]," * 3_000_000 + b"0]}",
    "lists in metadata": b'{"__metadata__":{"a":[' + b"[]," * 3_000_000 + b"0]}}",
    "texts in metadata": b'{"__metadata__":{' + b",".join(b'"%x":""' % key for key in range(600_000)) + b"}}",
    "texts that end in a backslash": b'{"a":[' + rb'"\\",' * 1_100_000 + b'""]}',
    "tensors": b"{%s}"
    % b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % key for key in range(200_000)),
    "dimensions": b'{"a":{"dtype":"U8","shape":[' + b"1," * 3_000_000 + b'1],"data_offsets":[0,1]}}',
}


@pytest.mark.parametrize("bomb", WIDE_BOMBS.values(), ids=WIDE_BOMBS)
def test_a_wide_bomb_is_refused_in_little_memory(write_raw, bomb: bytes):
    path = write_raw(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(SafetensorsValidationError, match=re.escape(path)):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < max(2.5 * len(bomb), 50_000_000)
    finally:
        tracemalloc.stop()


def test_a_file_of_more_tensors_than_may_be_is_not_called_damaged(write_raw):
    """To download it again would be in vain."""
    with pytest.raises(SafetensorsValidationError, match=r"more than 160,000 tensors, .* in shards") as caught:
        read_header(write_raw(WIDE_BOMBS["tensors"]))
    assert "damaged" not in str(caught.value)


def test_numbers_are_counted_as_they_come(write_raw):
    with pytest.raises(SafetensorsValidationError, match="not valid JSON"):
        read_header(write_raw(b'{"a":[' + b"1.0," * 2_200_000 + b"1.0]}"))


def test_metadata_may_be_one_text_of_a_million_quotes(write_raw):
    tags = json.dumps({f"tag {index} [x]": index for index in range(600_000)})
    assert read_header(write_raw({"__metadata__": {"ss_tag_frequency": tags}})).metadata["ss_tag_frequency"] == tags


def test_the_last_of_many_keys_may_be_the_one_that_stands_twice(write_raw):
    """Which must not take as many comparisons as there are pairs of keys: minutes, with the interpreter's lock held."""
    keys = [f"{index}" for index in range(400_000)]
    text = ",".join(f'"{key}":""' for key in [*keys, keys[-1]])
    with pytest.raises(SafetensorsValidationError, match=f"'{keys[-1]}': stands twice"):
        read_header(write_raw(f'{{"__metadata__":{{{text}}}}}'.encode()))


def test_a_large_honest_header_passes_the_bomb_check(write_raw):
    tensors = {f"{index}": entry(shape=[], offsets=[index, index + 1]) for index in range(80_000)}
    path = write_raw(tensors, b"\0" * 80_000)
    assert os.path.getsize(path) > 5 << 20
    assert len(read_header(path).tensors) == 80_000


def test_unknown_fields_are_somebody_elses_extension(write_raw):
    path = write_raw({"a": {"note": [1.5, True], **BYTE}}, b"\1")
    assert read_header(path).tensors["a"].shape == (1,)


def test_fields_in_any_order(write_raw):
    path = write_raw({"a": {"data_offsets": [0, 1], "shape": [1], "dtype": "U8"}}, b"\1")
    assert read_header(path).tensors["a"] == ("U8", (1,), 0, 1)


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="No such file") as caught:
        read_header(tmp_path / "absent.safetensors")
    assert not isinstance(caught.value, SafetensorsValidationError)


def test_a_name_that_no_file_can_have_is_an_ordinary_error():
    for read in (read_header, read_metadata, stamp_path, resident_bytes, load_pickled, read_index, read_gguf_header):
        with pytest.raises(SafetensorsLoadError, match="cannot be read"):
            read("a\0b")
    with pytest.raises(SafetensorsLoadError, match="cannot be read"):
        load_safetensors_cached("a\0b", cache=SafetensorsCache(1))


def test_a_folder_is_not_a_file(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="directory"):
        read_header(tmp_path)


class TestMetadata:
    def test_may_use_the_names_of_a_tensor_entry(self, write_raw):
        metadata = {"dtype": "a", "shape": "b", "data_offsets": "c"}
        path = write_raw({"__metadata__": metadata, "a": BYTE}, b"\1")
        assert read_header(path).metadata == read_metadata(path) == metadata

    def test_is_read_without_the_tensors(self, write_raw):
        path = write_raw(b'{"__metadata__":{"a":"\\u00e9"},"b":' + b"x" * 100_000)
        assert read_metadata(path) == {"a": "é"}

    def test_longer_than_the_peek(self, write_raw):
        long = "é" * 100_000
        path = write_raw({"__metadata__": {"a": long}, "b": BYTE}, b"\1")
        assert read_metadata(path) == {"a": long}

    def test_a_character_cut_by_the_peek(self, write_raw):
        for pad in range(3):
            head = b'{"__metadata__":{"k":"v"},"' + b"a" * ((1 << 16) - 30 + pad)
            path = write_raw(head + "漢字".encode() + b'":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\1")
            assert read_metadata(path) == {"k": "v"}

    def test_last_in_the_header(self, write_raw):
        assert read_metadata(write_raw({"b": BYTE, "__metadata__": {"a": "1"}}, b"\1")) == {"a": "1"}

    def test_absent_or_null(self, write_raw):
        assert read_metadata(write_raw({"b": BYTE}, b"\1")) == {}
        assert read_metadata(write_raw({"__metadata__": None, "b": BYTE}, b"\1")) == {}

    @pytest.mark.parametrize("block", [b"[1]", b'{"a":1}', b'{"a":"1","a":"2"}', b'{"\\ud800":"a"}', b'"text"'])
    def test_damaged(self, write_raw, block: bytes):
        with pytest.raises(SafetensorsValidationError):
            read_metadata(write_raw(b'{"__metadata__":' + block + b"}"))
