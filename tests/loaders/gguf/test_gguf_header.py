from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstack.loaders.errors import SafetensorsLoadError, SafetensorsValidationError
from warmstack.loaders.gguf.cursor import MAX_HEADER_BYTES
from warmstack.loaders.gguf.header import read_gguf_header
from warmstack.loaders.gguf.metadata import GgufArray
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

from .gguf_files import ARRAY, STRING, U16, U32, RawTensor, array, gguf_bytes, original_shape, pair, text

F32 = GGUF_TYPES["F32"].code
Q4_K = GGUF_TYPES["Q4_K"].code
Write = Callable[[bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_bytes(content: bytes) -> str:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return str(path)

    return write_bytes


@pytest.fixture
def written(tmp_path: Path) -> str:
    """What gguf-py writes: every kind of metadata and a few types of tensors."""
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    writer.add_uint32("a.u32", 7)
    writer.add_int64("a.i64", -(1 << 40))
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.text", "ink ✒")
    writer.add_array("comfy.gguf.orig_shape.conv", [4, 16, 2, 2])
    writer.add_array("tokenizer.words", [f"word {index}" for index in range(5000)])
    writer.add_array("tokenizer.scores", [index / 2 for index in range(5000)])
    writer.add_tensor("plain", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("packed", np.ones((3, 2 * 144), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.add_tensor("conv", np.ones((1, 144), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_the_table_of_types_is_that_of_gguf():
    theirs = {
        kind.name: (kind.value, *gguf.GGML_QUANT_SIZES[kind])
        for kind in gguf.GGMLQuantizationType
        if kind in gguf.GGML_QUANT_SIZES
    }
    assert {name: tuple(kind)[1:] for name, kind in GGUF_TYPES.items() if name in theirs} == theirs


def test_tensors_are_where_gguf_puts_them(written: str):
    header = read_gguf_header(written)
    reader = gguf.GGUFReader(written)
    assert list(header.tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        entry = header.tensors[tensor.name]
        assert entry.type.code == tensor.tensor_type
        assert header.data_start + entry.start == tensor.data_offset
        assert entry.end - entry.start == tensor.n_bytes
    assert header.tensors["plain"].shape == (2, 3)
    assert header.tensors["packed"].shape == (3, 512)


def test_the_original_shape_wins(written: str):
    assert read_gguf_header(written).tensors["conv"].shape == (4, 16, 2, 2)


def test_metadata_is_read_small_things_first(written: str):
    metadata = read_gguf_header(written).metadata
    assert metadata["general.architecture"] == "flux"
    assert (metadata["a.u32"], metadata["a.i64"], metadata["a.f64"]) == (7, -(1 << 40), 0.1)
    assert (metadata["a.bool"], metadata["a.text"]) == (True, "ink ✒")
    words, scores = metadata["tokenizer.words"], metadata["tokenizer.scores"]
    assert isinstance(words, GgufArray) and isinstance(scores, GgufArray)
    assert words.read() == tuple(f"word {index}" for index in range(5000))
    assert scores.read() == tuple(index / 2 for index in range(5000))


def test_an_array_of_a_file_that_changed_is_refused(written: str):
    words = read_gguf_header(written).metadata["tokenizer.words"]
    assert isinstance(words, GgufArray)
    with open(written, "ab") as file:
        file.write(b"x")
    with pytest.raises(SafetensorsLoadError, match="changed"):
        words.read()


def test_a_large_tokenizer_makes_no_strings(write: Write):
    words = array(STRING, [text(f"word {index}") for index in range(200_000)])
    path = write(gguf_bytes(pairs=[pair("tokenizer.words", ARRAY, words)]))
    tracemalloc.start()
    header = read_gguf_header(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(header.metadata["tokenizer.words"], GgufArray)
    assert peak_bytes < 4 * len(words)


def test_arrays_of_arrays_are_read_when_asked_for(write: Write):
    words = array(STRING, [text("ink"), text("brush")])
    numbers = array(U32, [struct.pack("<I", number) for number in range(40)])
    nested = array(ARRAY, [words, array(ARRAY, [numbers, array(U32, [])])])
    tensor = RawTensor("a", (4,), F32, 0)
    pairs = [pair("k.nested", ARRAY, nested), pair("k.after", U32, struct.pack("<I", 7))]
    header = read_gguf_header(write(gguf_bytes([tensor], pairs, bytes(16))))
    found = header.metadata["k.nested"]
    assert isinstance(found, GgufArray)
    assert found.read() == (("ink", "brush"), (tuple(range(40)), ()))
    assert header.metadata["k.after"] == 7
    assert list(header.tensors) == ["a"]


def test_arrays_in_arrays_are_bounded_for_the_whole_file(write: Write):
    pairs = [pair(f"k{i}", ARRAY, array(ARRAY, [bytes(12)] * (1 << 14))) for i in range(5)]
    assert len(read_gguf_header(write(gguf_bytes(pairs=pairs[:4]))).metadata) == 4
    with pytest.raises(SafetensorsValidationError, match="more than 65536 arrays in arrays"):
        read_gguf_header(write(gguf_bytes(pairs=pairs)))


@pytest.mark.parametrize(
    ("pairs", "which"),
    [({"split.no": 0, "split.count": 2}, "part 1 of the 2 files"), ({"split.count": 3}, "one of the 3 files")],
)
def test_a_part_of_a_split_model_is_refused(write: Write, pairs: dict[str, int], which: str):
    stated = [pair(key, U16, struct.pack("<H", value)) for key, value in pairs.items()]
    with pytest.raises(SafetensorsValidationError, match=f"is {which} of a split model; join them"):
        read_gguf_header(write(gguf_bytes([tensor_f32()], stated, bytes(16))))


@pytest.mark.parametrize("count", [0, 1])
def test_a_model_that_was_joined_again_is_whole(write: Write, count: int):
    stated = [pair("split.no", U16, bytes(2)), pair("split.count", U16, struct.pack("<H", count))]
    assert list(read_gguf_header(write(gguf_bytes([tensor_f32()], stated, bytes(16)))).tensors) == ["a"]


def test_a_file_that_is_not_there_is_a_load_error(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="cannot be read"):
        read_gguf_header(tmp_path / "absent.gguf")


def test_a_file_without_tensors_is_valid(write: Write):
    assert read_gguf_header(write(gguf_bytes())).tensors == {}


def test_alignment_moves_the_data(write: Write):
    tensor = RawTensor("a", (4,), F32, 0)
    aligned = pair("general.alignment", U32, struct.pack("<I", 4096))
    header = read_gguf_header(write(gguf_bytes([tensor], [aligned], bytes(16), alignment=4096)))
    assert header.data_start == 4096


def tensor_f32(name: str = "a", dims: tuple[int, ...] = (4,), offset: int = 0, code: int = F32) -> RawTensor:
    return RawTensor(name, dims, code, offset)


def alignment_of(value: int) -> bytes:
    return pair("general.alignment", U32, struct.pack("<I", value))


HUGE = (1 << 64) - 1
HOSTILE = {
    "empty": (b"", "another format"),
    "short": (b"GGU", "another format"),
    "magic": (gguf_bytes(magic=b"GGML"), "another format"),
    "version 1": (gguf_bytes(version=1), "version 1"),
    "version 4": (gguf_bytes(version=4), "version 4"),
    "big-endian": (gguf_bytes(version=3 << 24), "big-endian"),
    "no counts": (gguf_bytes()[:12], "truncated"),
    "tensor count": (gguf_bytes(tensor_count=HUGE), "tensors"),
    "tensor count of a large file": (gguf_bytes(tensor_count=1 << 18, data=bytes(24 << 18)), "tensors"),
    "key count": (gguf_bytes(key_count=HUGE), "keys"),
    "key count of a large file": (gguf_bytes(key_count=1 << 17, data=bytes(13 << 17)), "keys"),
    "key length": (gguf_bytes(pairs=[struct.pack("<QI", HUGE, U32) + bytes(8)]), "is said to have"),
    "text length": (gguf_bytes(pairs=[pair("k", STRING, struct.pack("<Q", 1 << 62))]), "is said to have"),
    "text beyond the file": (gguf_bytes(pairs=[pair("k", STRING, struct.pack("<Q", 9999))]), "truncated"),
    "array count": (gguf_bytes(pairs=[pair("k", ARRAY, struct.pack("<IQ", U32, HUGE))]), "items"),
    "array beyond the file": (gguf_bytes(pairs=[pair("k", ARRAY, struct.pack("<IQ", 12, 30))]), "truncated|items"),
    "array beyond the file in an array": (
        gguf_bytes(pairs=[pair("k", ARRAY, array(ARRAY, [struct.pack("<IQ", U32, 5)]))], data=bytes(8)),
        "truncated",
    ),
    "array count in an array": (
        gguf_bytes(pairs=[pair("k", ARRAY, array(ARRAY, [struct.pack("<IQ", U32, HUGE)]))]),
        "items",
    ),
    "arrays too deep": (gguf_bytes(pairs=[pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)]), "8 deep"),
    "texts beyond the file": (
        gguf_bytes(pairs=[pair("k", ARRAY, struct.pack("<IQQ", STRING, 20, HUGE))], data=bytes(99)),
        "truncated",
    ),
    "value type": (gguf_bytes(pairs=[pair("k", 13, bytes(8))]), "type 13"),
    "no utf-8": (gguf_bytes(pairs=[pair("k", STRING, text(b"\xff\xfe"))]), "UTF-8"),
    "key twice": (gguf_bytes(pairs=[pair("k", U32, bytes(4))] * 2), "twice"),
    "tensor twice": (gguf_bytes([tensor_f32(), tensor_f32(offset=32)], data=bytes(64)), "twice"),
    "dimensions": (gguf_bytes([tensor_f32(dims=(1,) * 9)], data=bytes(64)), "9 dimensions"),
    "dimension count": (gguf_bytes()[:8] + struct.pack("<QQQcI", 1, 0, 1, b"a", 1 << 31) + bytes(64), "dimensions"),
    "impossible shape": (gguf_bytes([tensor_f32(dims=(HUGE, HUGE, HUGE))], data=bytes(64)), "impossible"),
    "impossible empty shape": (gguf_bytes([tensor_f32(dims=(0, HUGE))], data=bytes(64)), "impossible"),
    "type": (gguf_bytes([tensor_f32(code=4)], data=bytes(64)), "unknown type 4"),
    "half a block": (gguf_bytes([tensor_f32(dims=(100,), code=Q4_K)], data=bytes(999)), "whole number"),
    "alignment 0": (gguf_bytes([tensor_f32()], [alignment_of(0)], bytes(64)), "power of two"),
    "alignment 48": (gguf_bytes([tensor_f32()], [alignment_of(48)], bytes(64)), "power of two"),
    "alignment text": (gguf_bytes([tensor_f32()], [pair("general.alignment", STRING, text("32"))]), "power of two"),
    "offset": (gguf_bytes([tensor_f32(offset=8)], data=bytes(64)), "not aligned"),
    "overlap": (gguf_bytes([tensor_f32(dims=(9,)), tensor_f32("b", offset=32)], data=bytes(64)), "shares bytes"),
    "truncated data": (gguf_bytes([tensor_f32(dims=(17,))], data=bytes(64)), "truncated"),
    "no data": (gguf_bytes([tensor_f32()])[:-4], "truncated"),
    "original shape": (gguf_bytes([tensor_f32()], [original_shape("a", (5,))], bytes(64)), "original shape"),
    "negative shape": (gguf_bytes([tensor_f32()], [original_shape("a", (-2, -2))], bytes(64)), "original shape"),
    "shape of text": (
        gguf_bytes([tensor_f32()], [pair("comfy.gguf.orig_shape.a", STRING, text("4"))], bytes(64)),
        "original shape",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_is_refused_in_little_memory(write: Write, name: str):
    content, reason = HOSTILE[name]
    path = write(content)
    tracemalloc.start()
    with pytest.raises(SafetensorsValidationError, match=reason) as caught:
        read_gguf_header(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20
    assert path in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith(("download it again", "convert it again", "convert it to little-endian"))


def test_a_header_beyond_the_bound_is_refused_unread(tmp_path: Path):
    path = tmp_path / "sparse.gguf"
    count = MAX_HEADER_BYTES // 8
    path.write_bytes(gguf_bytes(pairs=[pair("k", ARRAY, struct.pack("<IQ", 12, count))]))
    with open(path, "r+b") as file:
        file.truncate(MAX_HEADER_BYTES * 4)
    tracemalloc.start()
    with pytest.raises(SafetensorsValidationError, match="longer than"):
        read_gguf_header(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20


BASE = gguf_bytes(
    [tensor_f32("one", (3, 5)), RawTensor("two", (256, 2), Q4_K, 64)],
    [pair("general.name", STRING, text("ink")), original_shape("one", (5, 3)), alignment_of(32)],
    bytes(64 + 288),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BASE) - 360), st.integers(0, 255)), max_size=6), st.integers(0, len(BASE)))
def test_damage_gives_a_valid_header_or_a_validation_error(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], length: int
):
    content = bytearray(BASE)
    for position, value in damage:
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    for part in (content, content[:length]):
        path.write_bytes(part)
        try:
            header = read_gguf_header(path)
        except SafetensorsValidationError:
            continue
        spans = sorted((entry.start, entry.end) for entry in header.tensors.values() if entry.end > entry.start)
        assert all(0 <= start < end <= len(part) - header.data_start for start, end in spans)
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def test_the_header_imports_neither_numpy_nor_torch():
    code = "import sys; sys.modules['numpy'] = sys.modules['torch'] = None; import warmstack.loaders.gguf.header"
    subprocess.run([sys.executable, "-c", code], check=True)
