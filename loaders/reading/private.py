"""Private tensors: one anonymous buffer, filled by a few large reads that release the GIL."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..cancelling import Cancelled
from ..errors import SafetensorsLoadError
from ..files.header import SafetensorsHeader, read_header
from ..memory.huge_pages import Patience
from ..memory.huge_pages import ask as ask_for_huge_pages
from ..memory.spare_memory import Piece, SpareMemory
from ..system.kernel import cores
from ..system.rate_limit import RateLimit
from .direct import BLOCK_BYTES, READERS, fill_directly, should_read_directly
from .filling import CHUNK_BYTES, Pace, fill
from .opened import OpenFiles, open_raw, require_stamp
from .tensor_file import TensorFile
from .views import PrivateBuffer, view_tensors

T = TypeVar("T")

MOST_COPIERS = 4
_FRESH_CHUNK_BYTES = 8 << 20
"""Small enough that not much time is lost once huge pages are slow. What is there already is read in larger chunks: a
read seldom returns then while somebody else is busy in Python, and has to wait for the interpreter."""


def read_tensors(
    path: str | os.PathLike[str],
    *,
    header: SafetensorsHeader | None = None,
    cancelled: Cancelled | None = None,
    limiter: RateLimit | None = None,
    spare: SpareMemory | None = None,
) -> TensorFile:
    """Every tensor of `path` as a view of private memory, which the file's later fate cannot touch.

    The memory comes from `spare` when that has some, and goes there afterwards. Raises LoadCancelledError between two
    chunks once `cancelled()` is true, and SafetensorsLoadError when the file changes while it is being read or no
    longer is what `header` says."""
    header = read_header(path) if header is None else header
    return read_private(header, Pace(cancelled, limiter), spare=spare)


def read_private(
    header: SafetensorsHeader, pace: Pace, *, spare: SpareMemory | None = None, opened: OpenFiles | None = None
) -> TensorFile:
    """`read_tensors` at a given pace: one thread and small pages, which disturb the foreground least."""
    path = header.path
    with open_raw(path, opened, last=True) as file:
        require_stamp(path, file, header.stamp)
        buffer = allocate(path, header.data_bytes, huge_pages=False, spare=spare)
        with memoryview(buffer) as memory, memory[: header.data_bytes] as target:
            fill(path, file, [(target, header.data_start)], pace)
        require_stamp(path, file, header.stamp)
    return TensorFile(view_tensors(path, buffer, header.tensors, 0), header, buffer, "private")


def read_fast(
    header: SafetensorsHeader,
    pace: Pace,
    *,
    at_once: int = 1,
    spare: SpareMemory | None = None,
    opened: OpenFiles | None = None,
) -> TensorFile:
    """`read_tensors` for somebody who waits: a file that is not in the page cache is read past it by several threads,
    which leaves the cache to others; a cached one is copied by a few. Huge pages in both cases. `at_once` loads, this
    one included, share the disk and the cores."""
    path = header.path
    with open_raw(path, opened, last=True) as file:
        require_stamp(path, file, header.stamp)
        direct = should_read_directly(header, file, [(header.data_start, header.file_bytes)])
        # Direct reads fill whole blocks, and the tensors begin somewhere in the first.
        lead_bytes = header.data_start % BLOCK_BYTES if direct else 0
        buffer = allocate(path, lead_bytes + header.data_bytes, spare=spare, direct=direct)
        with memoryview(buffer) as memory, memory[: lead_bytes + header.data_bytes] as target:
            spans = [(target, header.data_start - lead_bytes)]
            patience = patience_with(buffer, len(target), spare, from_disk=direct)

            def fill_all(pace: Pace) -> None:
                readers = -(-READERS // at_once)
                copiers = max(1, min(MOST_COPIERS, cores() // at_once))
                if not (direct and fill_directly(path, file, spans, pace, threads=readers, patience=patience)):
                    chunk_bytes = CHUNK_BYTES if patience is None else _FRESH_CHUNK_BYTES
                    fill(path, file, spans, pace, threads=copiers, chunk_bytes=chunk_bytes, patience=patience)

            # The views know nothing of the bytes, and 2,000 of them take 3 ms.
            views = _meanwhile(lambda: view_tensors(path, buffer, header.tensors, lead_bytes), fill_all, pace)
        require_stamp(path, file, header.stamp)
    return TensorFile(views, header, buffer, "private")


def _meanwhile(make: Callable[[], T], fill_all: Callable[[Pace], None], pace: Pace) -> T:
    """What `make` makes while another thread does `fill_all`, and when that is done. A thread that nobody waits for
    any more, because of an error here or of Ctrl-C, stops between two chunks."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, "warmstack-load") as pool:
        fillings: list[Future[None]] = []
        try:
            # In here, since Ctrl-C may come while it starts.
            fillings.append(pool.submit(fill_all, pace.until(stop.is_set)))
            made = make()
            # No name may hold it: its error has this frame, and would keep itself and the buffer in a cycle.
            fillings.pop().result()
        finally:
            stop.set()
    return made


def allocate(
    path: str, nbytes: int, *, huge_pages: bool = True, spare: SpareMemory | None = None, direct: bool = False
) -> PrivateBuffer:
    """Private memory of `nbytes`, at least one: zeroed, in huge pages if that is wanted, or from `spare` and with
    anything in it: for `direct` reads in huge pages. `path` is for the error."""
    nbytes = max(nbytes, 1)
    if spare is None or not spare.serves(nbytes):
        return _fresh(path, nbytes, huge_pages=huge_pages, kept=False).memory
    piece = spare.take(nbytes, huge_pages=direct)
    if piece is None:
        piece = _fresh(path, spare.room_bytes(nbytes), huge_pages=huge_pages, kept=spare.worth_slow_pages)
    return spare.lent(piece, nbytes)


def patience_with(buffer: PrivateBuffer, nbytes: int, spare: SpareMemory | None, *, from_disk: bool) -> Patience | None:
    """For the huge pages of `nbytes` that `allocate` got; None: they are there already, or worth any time."""
    if spare is None or not spare.serves(nbytes):
        return Patience(nbytes, from_disk=from_disk)
    if spare.worth_slow_pages or spare.is_used(buffer):
        return None
    return Patience(nbytes, from_disk=from_disk, over=spare.came_in_small_pages)


def _fresh(path: str, nbytes: int, *, huge_pages: bool, kept: bool) -> Piece:
    try:
        if sys.platform == "win32":
            return Piece(mmap.mmap(-1, nbytes), huge_pages)
        buffer = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise SafetensorsLoadError(path, f"needs {nbytes} bytes of memory, which are not there; free some") from error
    return Piece(buffer, huge_pages and ask_for_huge_pages(buffer, kept=kept))
