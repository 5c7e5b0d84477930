"""What the process keeps unasked: it serves the next load, and the kernel may have it back."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    ModelLoader,
    SpareMemory,
    drop_file,
    load_loras_batch,
    load_safetensors_robust,
    log_memory_stats,
    process_spare,
)
from warmstack.loaders.reading.private import allocate, patience_with
from warmstack.loaders.system import kernel

MIB = 1 << 20
ELEMENTS = 4 * MIB
pytestmark = pytest.mark.skipif(not kernel.can_reclaim(), reason="this kernel cannot have it back: nothing is kept")
MADV_PAGEOUT = 21


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    process_spare().release()
    names = [str(tmp_path / f"{value}.safetensors") for value in range(2)]
    for value, name in enumerate(names):
        save_file({"a": torch.full((ELEMENTS,), float(value + 1))}, name)
    return names


DOORS: dict[str, Callable[[str], torch.Tensor]] = {
    "robust": lambda name: load_safetensors_robust(name)["a"],
    "eager": lambda name: load_safetensors_robust(name, strategy="eager")["a"],
    "loader": lambda name: ModelLoader().load_checkpoint(name)["a"],
    "batch": lambda name: load_loras_batch([name])[name]["a"],
}


@pytest.mark.parametrize("door", DOORS)
def test_a_load_takes_the_memory_of_the_one_before(files: list[str], door: str):
    load = DOORS[door]
    first = load(files[0])
    where = first.untyped_storage().data_ptr()
    del first
    held_bytes = process_spare().held_bytes
    second = load(files[1])
    assert (second.untyped_storage().data_ptr(), process_spare().held_bytes) == (where, 0)
    assert held_bytes >= 4 * ELEMENTS
    assert torch.equal(second, torch.full((ELEMENTS,), 2.0))


def test_a_loader_that_is_to_keep_nothing_keeps_nothing(files: list[str]):
    ModelLoader(spare=SpareMemory(0)).load_checkpoint(files[0])
    load_loras_batch(files, spare=SpareMemory(0))
    assert process_spare().held_bytes == 0


def test_small_pieces_are_not_kept():
    process_spare().release()
    for nbytes in (1, MIB, 4 * MIB - 1):
        allocate("x", nbytes, spare=process_spare())
    assert process_spare().held_bytes == 0


def page_out(tensor: torch.Tensor) -> None:
    """What the kernel does when it lacks memory: it drops what it may, and writes the rest to swap if there is any."""
    start = tensor.untyped_storage().data_ptr()
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = ctypes.c_size_t(tensor.nbytes - (first - start))
    assert ctypes.CDLL(None).madvise(ctypes.c_void_p(first), length, MADV_PAGEOUT) == 0


@pytest.mark.parametrize("reclaimable", [False, True])
@pytest.mark.parametrize("huge_pages", [False, True])
def test_what_is_kept_is_the_kernels_when_it_lacks_memory(reclaimable: bool, huge_pages: bool):
    spare, nbytes = SpareMemory(64 * MIB, reclaimable=reclaimable), 16 * MIB
    torch.frombuffer(allocate("x", nbytes, huge_pages=huge_pages, spare=spare), dtype=torch.uint8).fill_(1)
    piece = spare.take(nbytes)
    assert piece is not None
    kept = torch.frombuffer(piece.memory, dtype=torch.uint8)
    page_out(kept)
    dropped = int((kept == 0).sum())
    assert dropped > 0.9 * nbytes if reclaimable else dropped == 0


def test_what_the_kernel_took_back_serves_nobody(files: list[str]):
    """It would come slower than fresh memory does."""
    spare, nbytes = SpareMemory(64 * MIB, reclaimable=True), 16 * MIB
    kept = torch.frombuffer(allocate("x", nbytes, spare=spare), dtype=torch.uint8).fill_(1)
    where = kept.data_ptr()
    del kept
    assert ctypes.CDLL(None).madvise(ctypes.c_void_p(where), ctypes.c_size_t(nbytes), MADV_PAGEOUT) == 0
    assert (spare.take(nbytes), spare.held_bytes) == (None, 0)


def test_patience_is_for_memory_that_has_still_to_come():
    spare = SpareMemory(64 * MIB, reclaimable=True)

    def is_patient(nbytes: int) -> bool:
        buffer = allocate("x", nbytes, spare=spare)
        torch.frombuffer(buffer, dtype=torch.uint8).fill_(1)
        return patience_with(buffer, nbytes, spare, from_disk=False) is not None

    fresh, used, cut, grown = (is_patient(size * MIB) for size in (16, 16, 12, 20))
    assert (fresh, used, cut, grown) == (True, False, False, True)


def test_direct_reads_are_not_given_small_pages_and_others_are():
    """They take twice as long, and would do so at every load. What they leave is there for others."""
    spare, nbytes = SpareMemory(64 * MIB), 16 * MIB
    for huge_pages in (False, True):
        buffer = allocate("x", nbytes, huge_pages=huge_pages, spare=spare)
        spare.came_in_small_pages(buffer)
        del buffer
        small = spare.take(nbytes)
        assert small is not None and not small.in_huge_pages
        spare.lent(small, nbytes)
        assert (spare.take(nbytes, huge_pages=True), spare.held_bytes) == (None, nbytes)
        assert spare.take(nbytes) is small


def test_huge_pages_are_for_everybody_who_comes_first():
    spare, nbytes = SpareMemory(64 * MIB), 16 * MIB
    buffers = [allocate("x", nbytes, huge_pages=huge_pages, spare=spare) for huge_pages in (False, True, False)]
    buffers.clear()
    taken = [spare.take(nbytes) for _ in range(3)]
    assert [piece is not None and piece.in_huge_pages for piece in taken] == [True, False, False]


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_what_was_read_into_it_is_not_lost_to_the_kernel(files: list[str], warm: bool, huge: bool):
    """By direct reads too, which write behind the processor's back."""
    kept = load_safetensors_robust(files[0], strategy="fast_single_file" if huge else "eager")["a"]
    kept.fill_(7.0)
    del kept
    if not warm:
        drop_file(files[1])
    tensor = load_safetensors_robust(files[1], strategy="fast_single_file")["a"]
    page_out(tensor)
    assert torch.equal(tensor, torch.full((ELEMENTS,), 2.0))


def test_what_is_kept_is_told(files: list[str], caplog: pytest.LogCaptureFixture):
    told = []
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            log_memory_stats("now")
        told.append("(16 of them kept for later loads)" in caplog.records[-1].getMessage())
        load_safetensors_robust(files[0])
    assert told == [False, True]


def test_a_forked_process_starts_with_memory_of_its_own(files: list[str]):
    """Another thread of the parent may hold the lock just then; a loader is from before."""
    loader = ModelLoader()
    loader.load_checkpoint(files[0])
    kept_bytes = process_spare().held_bytes
    with process_spare()._lock:
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(30, exit=True)
            status = 1
            try:
                found = loader.load_checkpoint(files[1])["a"]
                status = 0 if kept_bytes and not process_spare().held_bytes and float(found[0]) == 2.0 else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_it_would_count_as_used_nothing_is_kept():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 44, resource.RLIM_INFINITY))
from warmstack.loaders import process_spare
print(process_spare().serves(64 << 20))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "False"
