from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import Pace, SpareMemory, read_header
from warmstack.loaders.memory import huge_pages
from warmstack.loaders.reading import private
from warmstack.loaders.reading.private import allocate, read_fast

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


def asked(nbytes: int, *, page_s: float = 0.0001) -> mmap.mmap:
    """Memory whose first huge page takes `page_s` to come."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge_pages.ask(memory, clock=iter((0.0, page_s)).__next__)
    return memory


def weigh(memory: mmap.mmap, *worked_s: float, from_disk: bool = False) -> None:
    """Reads of 8 MiB, one after the other, behind the first 4."""
    with memoryview(memory) as whole, whole[4 * MIB :] as part:
        patience = huge_pages.Patience(len(part), from_disk=from_disk)
        for index, seconds in enumerate(worked_s):
            patience.weigh(part, index * 8 * MIB, (index + 1) * 8 * MIB, seconds)


@pytest.mark.parametrize("from_disk", [False, True])
def test_quick_pages_stay_huge(from_disk: bool):
    memory = asked(68 * MIB)
    weigh(memory, *[0.0045] * 8, from_disk=from_disk)
    size, flags = flags_of(address_of(memory))[0]
    assert size >= 68 * MIB
    assert "hg" in flags


@pytest.mark.parametrize(("slow_s", "from_disk"), [(0.01, False), (0.03, True)])
def test_a_slow_read_among_many_is_put_up_with(slow_s: float, from_disk: bool):
    memory = asked(132 * MIB)
    weigh(memory, 0.0045, slow_s, *[0.0045] * 6, from_disk=from_disk)
    assert flags_of(address_of(memory))[0][0] >= 132 * MIB


def test_memory_whose_first_page_is_slow_comes_in_small_ones():
    memory = asked(64 * MIB, page_s=0.005)
    size, flags = flags_of(address_of(memory))[0]
    assert size >= 64 * MIB
    assert "nh" in flags


@pytest.mark.parametrize(("slow_s", "from_disk"), [(0.009, False), (0.022, True)])
def test_what_comes_after_too_many_slow_reads_comes_in_small_pages(slow_s: float, from_disk: bool):
    memory = asked(68 * MIB)
    weigh(memory, slow_s, slow_s, from_disk=from_disk)
    (before, huge), (_, small), *_ = flags_of(address_of(memory))
    assert before == 20 * MIB
    assert "hg" in huge
    assert "nh" in small


def test_little_memory_is_left_alone():
    memory = asked(MIB, page_s=0.005)
    assert not {"hg", "nh"} & flags_of(address_of(memory))[0][1]


def test_memory_that_is_kept_is_worth_slow_pages():
    memory = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge_pages.ask(memory, kept=True, clock=iter((0.0, 0.005)).__next__)
    assert "hg" in flags_of(address_of(memory))[0][1]


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_every_byte_is_right_whatever_comes_slowly(tmp_path, monkeypatch, same_tensors, slow: int):
    tensors = {f"{i}": torch.randint(0, 255, (5 * MIB,), dtype=torch.uint8) for i in range(5)}
    save_file(tensors, tmp_path / "any.safetensors")
    weighed: list[int] = []

    class Watched(huge_pages.Patience):
        def weigh(self, memory: memoryview, start: int, stop: int, worked_s: float) -> None:
            weighed.append(start)
            super().weigh(memory, start, stop, 1.0 if len(weighed) == slow else 0.0)

    monkeypatch.setattr(private, "Patience", Watched)
    same_tensors(read_fast(read_header(tmp_path / "any.safetensors"), Pace()).tensors, tensors)
    assert len(weighed) > slow


def test_every_byte_is_right_in_memory_with_anything_in_it(large, same_tensors):
    path, tensors = large
    header, spare = read_header(path), SpareMemory(1 << 30)
    memory = allocate("", header.data_bytes, spare=spare)
    memory[0] = memory[-1] = 77
    del memory
    same_tensors(read_fast(header, Pace(), spare=spare).tensors, tensors)
