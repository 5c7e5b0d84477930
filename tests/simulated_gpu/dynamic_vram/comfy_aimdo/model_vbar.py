"""Addresses for all weights of a model, and memory for some. Pages are taken away for another model or by the dice, and
are nonsense until the host has written them anew."""

from __future__ import annotations

import os
import random
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import memory
import streams

PAGE_BYTES = 256 << 10
"""Small, because the tests' models are."""
MOST_PAGES = int(os.environ.get("SIMULATED_GPU_DYNAMIC_PAGES", "96"))
"""Of all models together."""
_TAKEN_SHARE = 0.05
"""Of what the host asks for, although there is room."""
_dice = random.Random(streams.SEED)
_models: weakref.WeakSet[ModelVBAR] = weakref.WeakSet()

Allocation: TypeAlias = "tuple[ModelVBAR, int, int]"
"""The model, an address and how many bytes: the host reads the last two."""
Signature: TypeAlias = "list[int]"


class ModelVBAR:
    def __init__(self, size: int, device: int) -> None:
        self.device = device
        self._most_bytes, self._end = int(size), 0
        self._base = memory.DEVICES[device].addresses(self._most_bytes + PAGE_BYTES)
        self._filling: dict[int, int] = {}
        """Of each page that has memory: which one, in the order in which this model's pages got theirs."""
        self._fillings = 0
        self._pins: Counter[int] = Counter()
        _models.add(self)

    def prioritize(self) -> None:
        """Whoever asks has the priority."""

    def alloc(self, nbytes: int) -> Allocation:
        start, self._end = self._end, self._end + -(-nbytes // 512) * 512
        if self._end > self._most_bytes:
            raise MemoryError("a simulated model has no addresses left")
        return (self, self._base + start, nbytes)

    def fault(self, address: int, nbytes: int) -> Signature | None:
        """Pins these pages, and says which memory they have; None, and no pin, where there is no room."""
        pages = self._pages(address, nbytes)
        if _dice.random() < _TAKEN_SHARE:
            self._take(pages)
        missing = [page for page in pages if page not in self._filling]
        if missing and not self._makes_room(len(missing)):
            return None
        for page in missing:
            self._fillings += 1
            self._filling[page] = self._fillings
            self._poison(page)
        self._pins.update(pages)
        return [self._filling[page] for page in pages]

    def unpin(self, address: int, nbytes: int) -> None:
        self._pins -= Counter(self._pages(address, nbytes))

    def loaded_size(self) -> int:
        return len(self._filling) * PAGE_BYTES

    def free_memory(self, nbytes: float) -> int:
        before = self.loaded_size()
        for page in sorted(self._filling, reverse=True):
            if before - self.loaded_size() < nbytes:
                self._take([page])
        return before - self.loaded_size()

    def _pages(self, address: int, nbytes: int) -> range:
        start = address - self._base
        return range(start // PAGE_BYTES, (start + nbytes - 1) // PAGE_BYTES + 1)

    def _makes_room(self, pages: int) -> bool:
        for other in list(_models):
            if _pages_given() + pages > MOST_PAGES and other is not self:
                other._take(list(other._filling))
        return _pages_given() + pages <= MOST_PAGES

    def _take(self, pages: Iterable[int]) -> None:
        """What is queued comes first: memory is not unmapped under a kernel."""
        streams.synchronise(self.device)
        for page in pages:
            if page in self._filling and not self._pins[page]:
                del self._filling[page]
                self._poison(page)

    def _poison(self, page: int) -> None:
        memory.poison(self.device, self._base + page * PAGE_BYTES, PAGE_BYTES)


def _pages_given() -> int:
    return sum(len(model._filling) for model in _models)


def vbar_fault(allocation: Allocation) -> Signature | None:
    model, *where = allocation
    return model.fault(*where)


def vbar_unpin(allocation: Allocation | None) -> None:
    if allocation:
        model, *where = allocation
        model.unpin(*where)


def vbar_signature_compare(one: Signature | None, other: Signature | None) -> bool:
    return one is not None and one == other


def vbars_reset_watermark_limits() -> None: ...


def vbars_analyze(device: int | None = None) -> int:
    return _pages_given() * PAGE_BYTES
