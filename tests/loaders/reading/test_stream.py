from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from warmstack.loaders import (
    LoadCancelledError,
    Pace,
    RateLimit,
    SafetensorsLoadError,
    read_header,
    stream_pieces,
    stream_tensors,
)
from warmstack.loaders.reading import stream as module
from warmstack.loaders.reading.opened import open_raw


def wanted(*paths: str):
    return [(header, list(header.tensors)) for header in map(read_header, paths)]


@pytest.mark.parametrize("max_bytes", [0, 100, 1 << 30])
def test_every_tensor_in_the_order_of_the_files(saved, large, state_dict, same_tensors, max_bytes: int):
    streamed = list(stream_tensors(wanted(saved, large[0]), Pace(), max_bytes=max_bytes))
    assert [item.key for item in streamed] == [*read_header(saved).tensors, *read_header(large[0]).tensors]
    same_tensors({item.key: item.tensor for item in streamed}, {**state_dict, **large[1]})


def test_reads_ahead_no_further_than_the_bound(large):
    path, tensors = large
    size_bytes = tensors["layer_0.weight"].nbytes
    arrived: list[int] = []
    pace = Pace(reached=lambda path, nbytes, at: arrived.append(nbytes))
    taken_bytes = 0
    for item in stream_tensors(wanted(path), pace, max_bytes=3 * size_bytes):
        assert size_bytes <= item.waiting_bytes <= 3 * size_bytes
        assert sum(arrived) - taken_bytes <= 3 * size_bytes
        taken_bytes += size_bytes


def test_a_tensor_that_was_dropped_is_free_before_the_next_is_read(large):
    dropped: list[weakref.ref[torch.Tensor]] = []
    free_at_arrival: list[bool] = []

    def note(path: str, nbytes: int, at: object) -> None:
        free_at_arrival.append(all(reference() is None for reference in dropped))

    stream = stream_tensors(wanted(large[0]), Pace(reached=note), max_bytes=0)
    while (item := next(stream, None)) is not None:
        dropped.append(weakref.ref(item.tensor))
        del item
    assert free_at_arrival == [True] * 8


def test_leaving_early_ends_the_reader(large):
    stream = stream_tensors(wanted(large[0]), Pace(), max_bytes=1)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("warmstack-stream")]


def test_readers_that_have_room_end_too(tmp_path, monkeypatch):
    """The consumer leaves after the first of ten, all of which have room, while the readers wait for their turn."""
    monkeypatch.setattr(module, "_PIECE_BYTES", 1)
    path = tmp_path / "small.safetensors"
    save_file({f"{i}": torch.zeros(100 if i else 99, dtype=torch.uint8) for i in range(10)}, path)
    read: list[int] = []

    class Turns(RateLimit):
        def spend(self, nbytes: int, cancelled: Callable[[], bool] | None = None) -> None:
            while nbytes == 100 and not cancelled():
                time.sleep(0)

    pace = Pace(limiter=Turns(1), reached=lambda path, nbytes, at: read.append(nbytes))
    stream = stream_tensors(wanted(str(path)), pace, max_bytes=1 << 30)
    next(stream)
    stream.close()
    assert read == [99]


def test_a_process_ends_although_it_still_holds_a_stream(large):
    """Whatever a script was doing between two tensors, its error is its end."""
    script = """if True:
        import sys
        from warmstack.loaders import Pace, read_header, stream_tensors
        header = read_header(sys.argv[1])
        stream = stream_tensors([(header, list(header.tensors))], Pace(), max_bytes=4 << 20)
        next(stream)
        raise ValueError("on purpose")"""
    ended = subprocess.run([sys.executable, "-c", script, large[0]], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.endswith("ValueError: on purpose\n")


def test_small_neighbours_come_together_and_end_together(tmp_path, monkeypatch):
    """Of ten tensors of 100 bytes, without the fifth, at most three at once."""
    monkeypatch.setattr(module, "_PIECE_BYTES", 350)
    path = tmp_path / "small.safetensors"
    save_file({f"{i}": torch.full((100,), i, dtype=torch.uint8) for i in range(10)}, path)
    header = read_header(path)
    keys = [key for key in header.tensors if key != "4"]
    pieces = [
        ([*piece.tensors], piece.size_bytes, piece.waiting_bytes)
        for piece in stream_pieces([(header, keys)], Pace(), max_bytes=300)
    ]
    assert pieces == [(["0", "1", "2"], 300, 300), (["3"], 100, 100), (["5", "6", "7"], 300, 300),
                      (["8", "9"], 200, 200)]  # fmt: skip

    stream = stream_tensors([(header, keys)], Pace(), max_bytes=300)
    waiting = [item.waiting_bytes for item in stream]
    assert waiting == [300, 300, 300, 100, 300, 300, 300, 200, 200]


def test_a_piece_that_was_dropped_is_free_before_the_next_is_read(large):
    dropped: list[weakref.ref[torch.Tensor]] = []
    free_at_arrival: list[bool] = []

    def note(path: str, nbytes: int, at: object) -> None:
        free_at_arrival.append(all(reference() is None for reference in dropped))

    stream = stream_pieces(wanted(large[0]), Pace(reached=note), max_bytes=0)
    while (piece := next(stream, None)) is not None:
        dropped += map(weakref.ref, piece.tensors.values())
        del piece
    assert free_at_arrival == [True] * 8


def test_a_tensor_that_its_file_aligns_is_aligned(tmp_path):
    """The piece begins with two bytes that do not."""
    path = tmp_path / "aligned.safetensors"
    header = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F16","shape":[1],'
    header += b'"data_offsets":[2,4]},"c":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    _, item = stream_tensors([(read_header(path), ["b", "c"])], Pace(), max_bytes=1 << 30)
    assert item.key == "c"
    assert item.tensor.data_ptr() % 4 == 0


def test_a_disk_that_fails_is_an_error_of_the_file(saved, large, monkeypatch):
    """By name, although the next file is open already."""
    opened: list[str] = []

    @contextmanager
    def open_noted(path: str, *_: object, **__: object) -> Iterator[FileIO]:
        with open_raw(path) as file:
            opened.append(path)
            yield file

    def fail(*_: object) -> int:
        while len(opened) < 2:
            time.sleep(0)
        raise OSError(5, "Input/output error")

    stream = stream_tensors(wanted(saved, large[0]), Pace(), max_bytes=1 << 30)
    monkeypatch.setattr(module, "open_raw", open_noted)
    monkeypatch.setattr("warmstack.loaders.reading.filling.os.preadv", fail)
    with pytest.raises(SafetensorsLoadError, match=r"saved\.safetensors.*cannot be read \(Input/output error\)"):
        next(stream)


def test_cancelling(large):
    seen: list[str] = []
    stream = stream_tensors(wanted(large[0]), Pace(cancelled=lambda: len(seen) > 1), max_bytes=1)
    with pytest.raises(LoadCancelledError):
        while True:
            seen.append(next(stream).key)
    assert 2 <= len(seen) < 8


def test_a_file_that_changes_is_noticed(large):
    with pytest.raises(SafetensorsLoadError, match="changed while"):
        for _ in stream_tensors(wanted(large[0]), Pace(), max_bytes=1):
            os.utime(large[0], ns=(1, 1))


def test_whatever_breaks_the_reader_reaches_who_waits(large):
    def explode(path: str, nbytes: int, at: object) -> None:
        raise MemoryError("on purpose")

    with pytest.raises(MemoryError, match="on purpose"):
        list(stream_tensors(wanted(large[0]), Pace(reached=explode), max_bytes=1 << 30))


@given(sizes=st.lists(st.integers(0, 300), max_size=15), max_bytes=st.integers(0, 600))
def test_any_bound(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], max_bytes: int):
    path = tmp_path_factory.mktemp("any") / "any.safetensors"
    save_file({f"{i}": torch.full((size,), i, dtype=torch.uint8) for i, size in enumerate(sizes)}, path)
    for item in stream_tensors(wanted(str(path)), Pace(), max_bytes=max_bytes):
        assert item.waiting_bytes <= max(max_bytes, *sizes)
        assert (item.tensor == int(item.key)).all()


def test_no_files():
    assert list(stream_tensors([], Pace(), max_bytes=1)) == []
