from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from safetensors.torch import save_file

from warmstack.loaders import LoadCancelledError, Pace, SafetensorsLoadError, byte_gate, read_header, stream_tensors
from warmstack.loaders import stream as module
from warmstack.loaders.byte_gate import ByteGate


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
    pace = Pace(advanced=lambda path, nbytes: arrived.append(nbytes))
    taken_bytes = 0
    for item in stream_tensors(wanted(path), pace, max_bytes=3 * size_bytes):
        assert size_bytes <= item.waiting_bytes <= 3 * size_bytes
        assert sum(arrived) - taken_bytes <= 3 * size_bytes
        taken_bytes += size_bytes


def test_a_tensor_that_was_dropped_is_free_before_the_next_is_read(large):
    dropped: list[weakref.ref[torch.Tensor]] = []
    free_at_arrival: list[bool] = []

    def note(path: str, nbytes: int) -> None:
        free_at_arrival.append(all(reference() is None for reference in dropped))

    stream = stream_tensors(wanted(large[0]), Pace(advanced=note), max_bytes=0)
    while (item := next(stream, None)) is not None:
        dropped.append(weakref.ref(item.tensor))
        del item
    assert free_at_arrival == [True] * 8


def test_leaving_early_ends_the_reader(large):
    stream = stream_tensors(wanted(large[0]), Pace(), max_bytes=1)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("warmstack-stream")]


def test_a_reader_that_has_room_ends_too(large, monkeypatch):
    """The consumer leaves before the third tensor; there is room for all the others."""
    read: list[int] = []

    class Gate(ByteGate):
        def enter(self, nbytes: int, cancelled: Callable[[], bool]) -> bool:
            if len(read) == 2:
                while not cancelled():
                    time.sleep(0)
            return super().enter(nbytes, cancelled)

    monkeypatch.setattr(module, "ByteGate", Gate)
    stream = stream_tensors(
        wanted(large[0]), Pace(advanced=lambda path, nbytes: read.append(nbytes)), max_bytes=1 << 30
    )
    next(stream)
    stream.close()
    assert len(read) <= 3


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
    def explode(path: str, nbytes: int) -> None:
        raise MemoryError("on purpose")

    with pytest.raises(MemoryError, match="on purpose"):
        list(stream_tensors(wanted(large[0]), Pace(advanced=explode), max_bytes=1 << 30))


@given(sizes=st.lists(st.integers(0, 300), max_size=15), max_bytes=st.integers(0, 600))
def test_any_bound(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], max_bytes: int):
    path = tmp_path_factory.mktemp("any") / "any.safetensors"
    save_file({f"{i}": torch.full((size,), i, dtype=torch.uint8) for i, size in enumerate(sizes)}, path)
    for item in stream_tensors(wanted(str(path)), Pace(), max_bytes=max_bytes):
        assert item.waiting_bytes <= max(max_bytes, *sizes)
        assert (item.tensor == int(item.key)).all()


class GateMachine(RuleBasedStateMachine):
    """The gate against a list: only what has room is tried, because the rest would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = ByteGate(100)
        self.inside: list[int] = []

    @rule(nbytes=st.integers(0, 150))
    def enter(self, nbytes: int) -> None:
        room = not self.inside or sum(self.inside) == 0 or sum(self.inside) + nbytes <= 100
        assert self.gate.enter(nbytes, lambda: True) == room
        if room:
            self.inside.append(nbytes)

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self) -> None:
        self.gate.leave(self.inside.pop())

    @invariant()
    def counts(self) -> None:
        assert self.gate.inside_bytes == sum(self.inside)
        assert self.gate.inside_bytes <= 100 or len([n for n in self.inside if n]) == 1


TestGate = GateMachine.TestCase


def test_a_waiter_is_woken_when_there_is_room(monkeypatch):
    monkeypatch.setattr(byte_gate, "_POLL_S", 60)
    gate = ByteGate(10)
    gate.enter(10, lambda: False)
    entered = threading.Thread(target=gate.enter, args=(5, lambda: False), daemon=True)
    entered.start()
    gate.leave(10)
    entered.join(10)
    assert not entered.is_alive()
    assert gate.inside_bytes == 5


def test_no_files():
    assert list(stream_tensors([], Pace(), max_bytes=1)) == []
