"""What mapped and private tensors promise alike, and where they differ."""

from __future__ import annotations

import gc
import json
import os
import threading
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from warmstack.loaders import (
    RateLimit,
    SafetensorsLoadError,
    drop_file,
    map_tensors,
    read_header,
    read_tensors,
    resident_bytes,
    warm_file,
)
from warmstack.loaders.reading.direct import should_read_directly
from warmstack.loaders.reading.filling import Pace
from warmstack.loaders.reading.private import read_fast

LOADS = {"mapped": map_tensors, "private": read_tensors}


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest):
    return LOADS[request.param]


def test_equals_the_library(load, saved, state_dict, same_tensors):
    file = load(saved)
    same_tensors(file.tensors, load_file(saved))
    assert file.metadata == {"format": "pt", "ss_output_name": "ink"}
    assert file.nbytes == sum(tensor.nbytes for tensor in state_dict.values())


def test_says_what_its_memory_is(saved):
    assert {name: load(saved).storage for name, load in LOADS.items()} == {"mapped": "mapped", "private": "private"}


@pytest.mark.parametrize("dtype", ["U16", "U32", "U64", "C64", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4"])
def test_every_dtype_that_torch_has(load, write_raw, same_tensors, dtype: str):
    data = bytes(range(16))
    elements = {"U16": 8, "U32": 4, "U64": 2, "C64": 2, "F4": 32}.get(dtype, 16)
    path = write_raw({"a": {"dtype": dtype, "shape": [elements], "data_offsets": [0, 16]}}, data)
    same_tensors(load(path).tensors, load_file(path))


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2"])
def test_a_dtype_that_torch_lacks_is_named(load, write_raw, dtype: str):
    path = write_raw({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 3]}}, b"abc")
    with pytest.raises(SafetensorsLoadError, match=f"'a' is {dtype}, which this torch lacks"):
        load(path)


@pytest.mark.parametrize("shape", [[], [2, 1, 3]])
def test_packed_fp4_with_half_a_pair_is_refused(load, write_raw, shape: list[int]):
    header = {"a": {"dtype": "F4", "shape": [2, 1], "data_offsets": [0, 1]}}
    with pytest.raises(SafetensorsLoadError, match="odd last dimension"):
        load(write_raw(header, b"a"))


@pytest.mark.parametrize("pad", range(8))
def test_misaligned_data(load, tmp_path: Path, pad: int):
    header = {
        "odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "double": {"dtype": "F64", "shape": [3], "data_offsets": [1, 25]},
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [25, 29]},
    }
    text = json.dumps(header).encode() + b" " * pad
    doubles, halves = torch.tensor([1.5, -2.5, 3.5], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float16)
    path = tmp_path / "misaligned.safetensors"
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"\7" + doubles.numpy().tobytes() + halves.numpy().tobytes()
    )
    tensors = load(path).tensors
    assert torch.equal(tensors["double"], doubles)
    assert torch.equal(tensors["half"], halves)
    assert tensors["odd"].item() == 7


def test_a_file_without_tensors(load, write_raw):
    file = load(write_raw({"__metadata__": {"a": "b"}}))
    assert (file.tensors, file.nbytes, file.metadata) == ({}, 0, {"a": "b"})


def test_the_buffer_lives_exactly_as_long_as_a_view(load, saved):
    file = load(saved)
    freed: list[bool] = []
    weakref.finalize(file.buffer, freed.append, True)
    survivor = file.tensors["conv"][1, 2]
    del file
    gc.collect()
    assert not freed
    assert survivor.sum().isfinite()
    del survivor
    gc.collect()
    assert freed


def test_writing_to_a_tensor_never_reaches_the_file(load, saved):
    before = Path(saved).read_bytes()
    for tensor in load(saved).tensors.values():
        tensor.zero_()
    assert Path(saved).read_bytes() == before


def test_private_tensors_outlive_the_file_that_mapped_ones_show(saved, state_dict):
    private, mapped = read_tensors(saved), map_tensors(saved)
    with open(saved, "r+b") as file:
        file.seek(private.header.data_start)
        file.write(b"\0" * private.nbytes)
    assert torch.equal(private.tensors["conv"], state_dict["conv"])
    assert not mapped.tensors["conv"].any()


@pytest.mark.parametrize("change", ["rewritten", "longer", "gone"])
def test_a_header_of_an_older_file_is_refused(load, saved, change: str):
    header = read_header(saved)
    if change == "gone":
        os.unlink(saved)
    elif change == "longer":
        with open(saved, "ab") as file:
            file.write(b"more")
        os.utime(saved, ns=(header.mtime_ns, header.mtime_ns))
    else:
        os.utime(saved, ns=(header.mtime_ns + 1, header.mtime_ns + 1))
    with pytest.raises(SafetensorsLoadError, match="No such file" if change == "gone" else "changed while"):
        load(saved, header=header)


def test_a_file_that_changes_between_two_chunks_is_refused(large):
    path, _ = large

    def rewrite_once() -> bool:
        os.utime(path)
        return False

    with pytest.raises(SafetensorsLoadError, match="changed while it was being read"):
        read_tensors(path, cancelled=rewrite_once)


def test_a_file_cut_between_two_chunks_is_refused(large):
    path, _ = large

    def cut() -> bool:
        os.truncate(path, 1 << 20)
        return False

    with pytest.raises(SafetensorsLoadError, match="too early"):
        read_tensors(path, cancelled=cut)


def test_a_read_limit_is_charged_for_every_byte(saved):
    slept: list[float] = []
    limit = RateLimit(1000.0, clock=lambda: sum(slept), sleep=slept.append)
    file = read_tensors(saved, limiter=limit)
    assert sum(slept) == pytest.approx(file.nbytes / 1000.0)


needs_direct_reads = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")


@needs_direct_reads
def test_a_cold_file_is_read_past_the_page_cache(large, same_tensors):
    path, tensors = large
    drop_file(path)
    same_tensors(read_fast(read_header(path), Pace()).tensors, tensors)
    assert (resident_bytes(path) or 0) < os.path.getsize(path) / 10


@pytest.mark.parametrize("cold", [False, pytest.param(True, marks=needs_direct_reads)])
@pytest.mark.parametrize("at_once", [1, 4, 99])
def test_loads_at_once_share_the_threads_of_one(large, same_tensors, at_once: int, cold: bool):
    path, tensors = large
    header = read_header(path)
    if cold:
        drop_file(path)
    else:
        warm_file(path, cancelled=lambda: False)
    readers: set[int] = set()
    pace = Pace(reached=lambda path, nbytes, at: readers.add(threading.get_ident()))
    same_tensors(read_fast(header, pace, at_once=at_once).tensors, tensors)
    assert 1 <= len(readers) <= -(-12 // at_once)


@needs_direct_reads
@pytest.mark.parametrize("elements", [0, 1, 4080, 4096, 4097, 12_288])
def test_direct_reads_of_any_length(tmp_path: Path, same_tensors, elements: int):
    path = tmp_path / "tail.safetensors"
    tensors = {"a": torch.randint(0, 255, (elements,), dtype=torch.uint8), "b": torch.tensor([1, 2, 3])}
    save_file(tensors, path)
    drop_file(path)
    header = read_header(path)
    drop_file(path)
    with open(path, "rb", buffering=0) as file:
        assert should_read_directly(header, file, [(header.data_start, header.file_bytes)])
    same_tensors(read_fast(header, Pace()).tensors, tensors)


@needs_direct_reads
def test_a_cached_file_is_not_read_from_the_disk_again(large):
    path, _ = large
    header = read_header(path)
    warm_file(path, cancelled=lambda: False)
    with open(path, "rb", buffering=0) as file:
        assert not should_read_directly(header, file, [(header.data_start, header.file_bytes)])


@needs_direct_reads
def test_direct_reads_are_not_offered_where_they_would_misalign(write_raw):
    entry = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    offered = []
    for pad in range(8):
        path = write_raw(json.dumps(entry).encode() + b" " * pad, b"a")
        header = read_header(path)
        drop_file(path)
        with open(path, "rb", buffering=0) as file:
            offered.append(should_read_directly(header, file, [(header.data_start, header.file_bytes)]))
    assert offered.count(True) == 1


@needs_direct_reads
def test_the_file_is_read_as_usual_again_after_a_refusal(large, same_tensors, monkeypatch):
    path, tensors = large
    drop_file(path)
    refused: list[int] = []

    def refuse(fd: object, command: int, flags: int = 0) -> int:
        if flags & os.O_DIRECT:
            refused.append(flags)
            raise OSError(22, "Invalid argument")
        return 0

    monkeypatch.setattr("fcntl.fcntl", refuse)
    same_tensors(read_fast(read_header(path), Pace()).tensors, tensors)
    assert refused


def test_populating_brings_the_file_in(large, same_tensors):
    path, tensors = large
    same_tensors(map_tensors(path, populate=True).tensors, tensors)
