from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import Pace, SpareMemory, filling, huge_pages, read_header
from warmstack.loaders.private import allocate, read_fast, read_private

MIB = 1 << 20
pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no huge pages"
)


def flags_of(address: int) -> list[tuple[int, set[str]]]:
    """(bytes, VmFlags) of the mappings from `address` on, as far as they adjoin."""
    found, end = [], address
    for block in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())[1:]:
        start, stop = (int(number, 16) for number in block.split(" ")[0].split("-"))
        if start <= end < stop:
            match = re.search(r"VmFlags: (.*)", block)
            assert match is not None
            found.append((stop - end, set(match[1].split())))
            end = stop
    return found


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))


def clock_of(slow: int) -> Callable[[], float]:
    """Read before and after each page, of which the one at `slow` steps from the first is slow to come."""
    readings, times = count(), [0.0]

    def read() -> float:
        times.append(times[-1] + (0.005 if next(readings) == 2 * slow + 1 else 0.0001))
        return times[-1]

    return read


def asked(nbytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge_pages.ask(memory)
    return memory


def test_what_comes_after_a_slow_page_comes_in_small_ones():
    memory = asked(64 * MIB)
    with memoryview(memory) as whole, whole[4 * MIB :] as part:
        huge_pages.touch(part, 0, len(part), clock=clock_of(slow=1))
    (before, huge), (_, small), *_ = flags_of(address_of(memory))
    assert before == 12 * MIB
    assert "hg" in huge
    assert "nh" in small


def test_quick_pages_stay_huge():
    memory = asked(64 * MIB)
    with memoryview(memory) as whole:
        huge_pages.touch(whole, 0, len(whole), clock=clock_of(slow=99))
    size, flags = flags_of(address_of(memory))[0]
    assert size >= 64 * MIB
    assert "hg" in flags


def test_little_memory_is_left_alone():
    clock = clock_of(slow=0)
    with memoryview(bytearray(MIB)) as whole:
        huge_pages.touch(whole, 0, len(whole), clock=clock)
    assert clock() == pytest.approx(0.0001)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_every_byte_is_right_whatever_comes_slowly(tmp_path, monkeypatch, slow: int, kept: bool):
    """And in the memory of an earlier load, with anything in it."""
    tensors = {f"{i}": torch.randint(0, 255, (5 * MIB,), dtype=torch.uint8) for i in range(5)}
    save_file(tensors, tmp_path / "any.safetensors")
    header = read_header(tmp_path / "any.safetensors")
    looked: list[int] = []

    def touch(memory: memoryview, start: int, stop: int) -> None:
        looked.append(start)
        huge_pages.touch(memory, start, stop, clock=clock_of(slow))

    monkeypatch.setattr(filling, "huge_pages", SimpleNamespace(touch=touch))
    spare = SpareMemory(1 << 30) if kept else None
    if spare is not None:
        memory = allocate("", header.data_bytes, spare=spare)
        memory[0] = memory[-1] = 77
        del memory
    for file in (read_private(header, Pace(), spare=spare), read_fast(header, Pace(), copiers=2, spare=spare)):
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in file.tensors.items())
    assert looked
