"""The safetensors library is the oracle: what it loads, WarmStack loads to the same bits; what it refuses, WarmStack
refuses. Where the two differ on purpose, WarmStack is the stricter one, and `_stricter` says why."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from warmstack.loaders import SafetensorsValidationError, map_tensors, read_header, read_metadata, read_tensors
from warmstack.loaders.files.tensor_entry import DTYPE_BITS

WIDTHS = {name: bits // 8 for name, bits in DTYPE_BITS.items() if bits >= 8}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "fuzz.safetensors"


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A valid header and its data: any dtype, any shape up to 4 dimensions, entries in any order."""
    keys = draw(
        st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=6).filter(
            lambda keys: "__metadata__" not in keys
        )
    )
    header: dict[str, Any] = {}
    end = 0
    for key in keys:
        dtype = draw(st.sampled_from(sorted(WIDTHS)))
        shape = draw(st.lists(st.integers(0, 3), max_size=4))
        start, count = end, 1
        for dim in shape:
            count *= dim
        end += count * WIDTHS[dtype]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    shuffled = {key: header[key] for key in draw(st.permutations(list(header)))}
    if draw(st.booleans()):
        shuffled["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    return shuffled, draw(st.binary(min_size=end, max_size=end))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), st.integers(2**61, 2**65), st.floats(), st.text(max_size=3),
    st.lists(st.integers(-1, 4), max_size=3), st.sampled_from(sorted(DTYPE_BITS)),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A layout with one field of one entry replaced, moved or removed, or with more or fewer bytes than it says."""
    header, data = draw(layouts())
    if header and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(header)))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "other", None]))
        if field is None:
            header[key] = draw(JUNK)
        elif draw(st.booleans()):
            header[key][field] = draw(JUNK)
        elif field in header[key]:
            del header[key][field]
    else:
        data = data + b"\0" if draw(st.booleans()) else data[:-1]
    return header, data


def _write(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def _oracle(path: Path) -> dict[str, torch.Tensor] | None:
    try:
        return load_file(path)
    except (SafetensorError, OverflowError):
        return None


def _ours(path: Path) -> dict[str, torch.Tensor] | None:
    try:
        return map_tensors(path).tensors
    except SafetensorsValidationError:
        return None


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        (left[key].dtype, left[key].shape) == (right[key].dtype, right[key].shape)
        and torch.equal(left[key].flatten().view(torch.uint8), right[key].flatten().view(torch.uint8))
        for key in left
    )


@settings(max_examples=150, deadline=None)
@given(layout=layouts(), pad=st.integers(0, 9))
def test_every_valid_file_loads_to_the_same_bits(scratch: Path, layout: tuple[dict[str, Any], bytes], pad: int):
    header, data = layout
    # Padding shifts the data section, so that tensors start at every misalignment.
    _write(scratch, json.dumps(header).encode() + b" " * pad, data)
    expected = load_file(scratch)
    for load in (map_tensors, read_tensors):
        assert _same(load(scratch).tensors, expected)
    assert read_metadata(scratch) == read_header(scratch).metadata == header.get("__metadata__", {})


@settings(max_examples=300, deadline=None)
@given(layout=damaged())
def test_a_damaged_header_is_judged_alike(scratch: Path, layout: tuple[dict[str, Any], bytes]):
    header, data = layout
    text = json.dumps(header).encode()
    _write(scratch, text, data)
    expected, actual = _oracle(scratch), _ours(scratch)
    if actual is None:
        assert expected is None or _stricter(header)
    else:
        assert expected is not None and _same(actual, expected)


VALID = save({"a": torch.arange(3.0), "b.c": torch.ones(2, 2, dtype=torch.bfloat16)}, metadata={"format": "pt"})


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 12),
)
def test_flipped_bytes_never_load_to_anything_else(scratch: Path, edits: list[tuple[int, int]], cut: int):
    content = bytearray(VALID)
    for position, value in edits:
        content[position] = value
    scratch.write_bytes(content[: len(content) - cut] if cut < 4 else content)
    expected, actual = _oracle(scratch), _ours(scratch)
    if actual is not None:
        assert expected is not None and _same(actual, expected)
    else:
        assert expected is None or _duplicates(bytes(content))


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), length=st.integers(0, 200))
def test_noise_is_refused_in_one_way(scratch: Path, content: bytes, length: int):
    _write(scratch, content, b"")
    expected, actual = _oracle(scratch), _ours(scratch)
    assert (actual is None) == (expected is None)
    scratch.write_bytes(struct.pack("<Q", length) + content)
    expected, actual = _oracle(scratch), _ours(scratch)
    assert (actual is None) == (expected is None)


def _stricter(header: dict[str, Any]) -> bool:
    """The library multiplies dimensions from the left and stops at a zero, so it lets a size that overflows behind one
    pass; torch then computes strides that overflow. It also takes an entry written as a list."""
    entries = [entry for key, entry in header.items() if key != "__metadata__"]
    return any(
        isinstance(entry, list) or any(isinstance(dim, int) and dim >= 2**60 for dim in entry["shape"])
        for entry in entries
    )


def _duplicates(content: bytes) -> bool:
    """An edit made two keys of one object equal: the library keeps the last."""
    length = int.from_bytes(content[:8], "little")
    repeated: list[bool] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.append(len(dict(pairs)) < len(pairs))
        return dict(pairs)

    json.loads(content[8 : 8 + length], object_pairs_hook=note)
    return any(repeated)
