from __future__ import annotations

import ctypes
import mmap
import re
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import Pace, SpareMemory, read_header
from warmstack.loaders import filling as filling_module
from warmstack.loaders import private as private_module
from warmstack.loaders.huge_pages import HugePages
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


class Machine:
    """Where the page at `slow` steps from the first is slow to come."""

    def __init__(self, slow: int) -> None:
        self.time_s = 0.0
        self.readings = count()
        self.slow = slow
        self.pages = HugePages(lambda: self.time_s, self.work_s)

    def work_s(self) -> float:
        """Read before and after each page."""
        self.time_s += 0.005 if next(self.readings) == 2 * self.slow + 1 else 0.0001
        return self.time_s

    def memory(self, nbytes: int) -> mmap.mmap:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.pages.ask(memory)
        return memory


def test_what_comes_after_a_slow_page_comes_in_small_ones():
    machine = Machine(slow=1)
    memory = machine.memory(64 * MIB)
    with memoryview(memory) as whole, whole[4 * MIB :] as part:
        machine.pages.touch(part, 0, len(part))
    (before, huge), (_, small), *_ = flags_of(address_of(memory))
    assert before == 12 * MIB
    assert "hg" in huge
    assert "nh" in small


def test_quick_pages_stay_huge():
    machine = Machine(slow=99)
    memory = machine.memory(64 * MIB)
    with memoryview(memory) as whole:
        machine.pages.touch(whole, 0, len(whole))
    size, flags = flags_of(address_of(memory))[0]
    assert size >= 64 * MIB
    assert "hg" in flags


def test_after_a_slow_page_nobody_asks_for_huge_ones_for_a_while_and_longer_each_time():
    machine = Machine(slow=0)

    def asks() -> bool:
        memory = machine.memory(64 * MIB)
        return "hg" in flags_of(address_of(memory))[0][1]

    def meets_a_slow_one() -> None:
        machine.readings = count()
        with memoryview(machine.memory(64 * MIB)) as whole:
            machine.pages.touch(whole, 0, 1)

    for period_s in (10, 40, 160, 600, 600):
        meets_a_slow_one()
        machine.time_s += period_s - 1
        assert not asks()
        machine.time_s += 2
        assert asks()
    machine.time_s += 10_000
    meets_a_slow_one()
    machine.time_s += 11
    assert asks()


def test_others_that_have_asked_before_get_small_ones_too():
    machine = Machine(slow=0)
    one, other = machine.memory(64 * MIB), machine.memory(64 * MIB)
    with memoryview(one) as whole:
        machine.pages.touch(whole, 0, 1)
    with memoryview(other) as whole:
        machine.pages.touch(whole, 16 * MIB, 17 * MIB)
    (before, huge), (_, small), *_ = flags_of(address_of(other))
    assert before == 16 * MIB
    assert "hg" in huge
    assert "nh" in small


def test_little_memory_is_left_alone():
    machine = Machine(slow=0)
    with memoryview(bytearray(MIB)) as whole:
        machine.pages.touch(whole, 0, len(whole))
    assert next(machine.readings) == 0


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("slow", [0, 1, 2])
def test_every_byte_is_right_whatever_comes_slowly(tmp_path, monkeypatch, slow: int, kept: bool):
    """And in the memory of an earlier load, with anything in it."""
    tensors = {f"{i}": torch.randint(0, 255, (5 * MIB,), dtype=torch.uint8) for i in range(5)}
    save_file(tensors, tmp_path / "any.safetensors")
    header = read_header(tmp_path / "any.safetensors")
    machine = Machine(slow)
    monkeypatch.setattr(filling_module, "HUGE_PAGES", machine.pages)
    monkeypatch.setattr(private_module, "HUGE_PAGES", machine.pages)
    spare = SpareMemory(1 << 30) if kept else None
    if spare is not None:
        memory = allocate("", header.data_bytes, spare=spare)
        memory[0] = memory[-1] = 77
        del memory
    for file in (read_private(header, Pace(), spare=spare), read_fast(header, Pace(), copiers=2, spare=spare)):
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in file.tensors.items())
    assert next(machine.readings) > 2 * slow
