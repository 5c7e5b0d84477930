"""SpareMemory: what tensors have let go of serves the next ones, and never two at a time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from safetensors.torch import save_file

from warmstack.loaders import ModelLoader, SpareMemory, load_loras_batch, read_tensors
from warmstack.loaders.reading.private import allocate

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _no_cycles() -> Iterator[None]:
    """What is dropped goes at once here, so that a test sees whose memory it gets."""
    gc.disable()
    yield
    gc.enable()


def write(path: Path, value: float, elements: int = MIB) -> str:
    save_file({"a": torch.full((elements,), value), "b": torch.arange(elements, dtype=torch.float32)}, path)
    return str(path)


def address(tensors: dict[str, torch.Tensor]) -> int:
    return tensors["a"].untyped_storage().data_ptr()


def test_memory_that_was_let_go_serves_the_next_file(tmp_path: Path) -> None:
    spare = SpareMemory(64 * MIB)
    first = read_tensors(write(tmp_path / "1.safetensors", 1.0), spare=spare)
    where = address(first.tensors)
    assert spare.held_bytes == 0
    del first
    assert spare.held_bytes == 8 * MIB
    second = read_tensors(write(tmp_path / "2.safetensors", 2.0), spare=spare)
    assert (address(second.tensors), spare.held_bytes) == (where, 0)
    assert torch.equal(second.tensors["a"], torch.full((MIB,), 2.0))
    assert torch.equal(second.tensors["b"], torch.arange(MIB, dtype=torch.float32))


def test_one_view_keeps_all_of_it_from_others(tmp_path: Path) -> None:
    spare = SpareMemory(64 * MIB)
    path = write(tmp_path / "1.safetensors", 1.0)
    row = read_tensors(path, spare=spare).tensors["a"][5:7]
    assert spare.held_bytes == 0
    other = read_tensors(write(tmp_path / "2.safetensors", 2.0), spare=spare)
    assert torch.equal(row, torch.ones(2))
    del row, other
    assert spare.held_bytes == 16 * MIB


@pytest.mark.parametrize("elements", [MIB // 2, MIB, 3 * MIB // 2])
def test_what_is_too_large_is_cut_and_what_is_too_small_grows(tmp_path: Path, elements: int) -> None:
    spare = SpareMemory(64 * MIB)
    del (first := {"file": read_tensors(write(tmp_path / "1.safetensors", 1.0), spare=spare)})["file"]
    second = read_tensors(write(tmp_path / "2.safetensors", 2.0, elements), spare=spare)
    assert spare.held_bytes == 0
    assert len(memoryview(second.buffer)) == 8 * elements
    assert torch.equal(second.tensors["b"], torch.arange(elements, dtype=torch.float32))
    assert not first


@pytest.mark.parametrize("more_bytes", [5000, -5000, 1 << 20])
def test_what_is_about_as_large_takes_it_as_it_is(more_bytes: int) -> None:
    """A mapping that changes its size by less than a huge page loses all it has."""
    spare = SpareMemory(64 * MIB)
    for nbytes in (9 * MIB, 9 * MIB + more_bytes, 9 * MIB):
        memory = allocate("", nbytes, huge_pages=False, spare=spare)
        assert len(memory) == nbytes
        memory[nbytes - 1] = 7
        del memory
        assert spare.held_bytes == 10 * MIB


def test_something_small_does_not_take_something_large(tmp_path: Path) -> None:
    spare = SpareMemory(64 * MIB)
    read_tensors(write(tmp_path / "1.safetensors", 1.0), spare=spare)
    small = read_tensors(write(tmp_path / "2.safetensors", 2.0, 100), spare=spare)
    assert spare.held_bytes == 8 * MIB
    assert small.tensors["a"][99] == 2.0


def test_no_more_is_kept_than_it_may_and_the_latest_stay() -> None:
    spare = SpareMemory(3 * MIB)
    buffers = [allocate("x", nbytes, spare=spare) for nbytes in (MIB, 2 * MIB, 1 * MIB + 1, 4 * MIB)]
    while buffers:
        del buffers[0]
    assert spare.held_bytes == 1 * MIB + 1
    spare.release()
    assert spare.held_bytes == 0


def test_loaders_of_every_kind_take_it(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", float(i)) for i in range(2)]
    for strategy in ("eager", "fast_single_file", "parallel_async_lazy", "auto"):
        spare = SpareMemory(64 * MIB)
        loader = ModelLoader(strategy, spare=spare)
        where = loader.load_shards(paths[:1])["a"].untyped_storage().data_ptr()
        again = loader.load_shards(paths[1:])
        assert again["a"].untyped_storage().data_ptr() == where, strategy
        assert torch.equal(again["a"], torch.ones(MIB))
    spare = SpareMemory(64 * MIB)
    load_loras_batch(paths, strategy="fast_single_file", spare=spare)
    assert spare.held_bytes == 16 * MIB
    for i in range(2):
        (tmp_path / f"s{i}.safetensors").write_bytes(Path(paths[i]).read_bytes())
    save_file({"c": torch.ones(MIB)}, tmp_path / "s1.safetensors")
    shards = ModelLoader("parallel", spare=spare).load_shards(
        [tmp_path / "s0.safetensors", tmp_path / "s1.safetensors"]
    )
    assert spare.held_bytes < 16 * MIB
    assert torch.equal(shards["c"], torch.ones(MIB))


class SpareMachine(RuleBasedStateMachine):
    """Buffers come and go in any order: each keeps what was written into it, and no memory has two owners."""

    LIMIT_BYTES = 256 << 10

    def __init__(self) -> None:
        super().__init__()
        self.spare = SpareMemory(self.LIMIT_BYTES)
        self.alive: list[tuple[torch.Tensor, int]] = []
        self.made = 0

    @rule(nbytes=st.integers(1, 200 << 10))
    def ask(self, nbytes: int) -> None:
        self.made = (self.made + 1) % 251
        tensor = torch.frombuffer(allocate("x", nbytes, spare=self.spare), dtype=torch.uint8)
        assert len(tensor) == nbytes
        self.alive.append((tensor.fill_(self.made), self.made))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.alive.pop(data.draw(st.integers(0, len(self.alive) - 1)))

    @rule()
    def release(self) -> None:
        self.spare.release()
        assert self.spare.held_bytes == 0

    @invariant()
    def everybody_finds_what_he_wrote(self) -> None:
        assert all(bool((tensor == value).all()) for tensor, value in self.alive)

    @invariant()
    def no_more_is_kept_than_it_may(self) -> None:
        assert self.spare.held_bytes <= self.LIMIT_BYTES


TestSpare = SpareMachine.TestCase
TestSpare.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
