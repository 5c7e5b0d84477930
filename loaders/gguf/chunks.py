"""Work in chunks, by the calling thread or by a few that take the next chunk when they are done with one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .quant_types import GgufType

T = TypeVar("T")

CHUNK_ELEMENTS = 1 << 18
"""A chunk of float32 takes 1 MiB, so that what one pass writes is still in the cache when the next one reads it; a
cancel waits for one chunk of each thread."""


def chunk_spans(blocks: int, kind: GgufType, chunk_elements: int | None = None) -> Iterable[tuple[int, int]]:
    """(first block, end) of each chunk of a tensor of `blocks`; by CHUNK_ELEMENTS unless told otherwise. No chunk is a
    single block unless the tensor is: of two NaN, numpy adds up to the other one then."""
    step = (CHUNK_ELEMENTS if chunk_elements is None else chunk_elements) // kind.block_elements
    starts = range(0, blocks - (blocks > 1), step)
    return ((start, start + step if blocks - start - step > 1 else blocks) for start in starts)


def drain(chunks: Iterable[T], work: Callable[[T], None], threads: int) -> None:
    """`work` on every chunk. Once one raises no other begins, and when this raises no thread is at work any more."""
    if threads == 1:
        for chunk in chunks:
            work(chunk)
        return
    waiting, lock, over = iter(chunks), threading.Lock(), threading.Event()

    def take_turns() -> None:
        try:
            while not over.is_set():
                with lock:
                    chunk = next(waiting, None)
                if chunk is None:
                    return
                work(chunk)
        except BaseException:
            over.set()
            raise

    with ThreadPoolExecutor(threads, "warmstack-gguf") as pool:
        turns: list[Future[None]] = []
        try:
            # In here, since Ctrl-C may come while they start.
            turns += (pool.submit(take_turns) for _ in range(threads))
            # No name may hold the one that raises: its error holds this frame.
            while turns:
                turns.pop().result()
        finally:
            over.set()
