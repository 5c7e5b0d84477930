"""A first scan of many files that stands still: the names are known, and not one of the headers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

from warmstack.lora.library import catalog as catalog_module
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.header_facts import HeaderFacts

T = TypeVar("T")

FILES = catalog_module._NAMES_FIRST_FILES + 1
"""New files, so many that names are published first."""
_WAIT_S = 30.0


class HeldScan:
    """Goes on as soon as somebody waits for it."""

    def __init__(self, catalog: LoraCatalog, threads: ThreadPoolExecutor) -> None:
        self._catalog = catalog
        self._threads = threads
        self._reading = threading.Event()
        self.go_on = threading.Event()
        self._read = catalog_module.read_facts

    def start(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(catalog_module, "read_facts", self._held)
        self._threads.submit(self._catalog.refresh)
        assert self._reading.wait(_WAIT_S)

    def ask(self, call: Callable[[], T]) -> tuple[T, bool]:
        """What `call` returns, and whether it waited for the headers."""
        waits, is_over = threading.Event(), threading.Event()
        refresh = self._catalog.refresh

        def refreshing() -> object:
            waits.set()
            self.go_on.set()
            return refresh()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._catalog, "refresh", refreshing)
            answer = self._threads.submit(call)
            answer.add_done_callback(lambda _: is_over.set())
            assert is_over.wait(_WAIT_S)
        return answer.result(), waits.is_set()

    def _held(self, path: str) -> HeaderFacts:
        self._reading.set()
        assert self.go_on.wait(_WAIT_S)
        return self._read(path)


@contextmanager
def held_scan(catalog: LoraCatalog) -> Iterator[HeldScan]:
    """The folders of `catalog` hold at least `FILES` files that it has not seen yet."""
    with ThreadPoolExecutor(2) as threads, pytest.MonkeyPatch.context() as patch:
        scan = HeldScan(catalog, threads)
        try:
            scan.start(patch)
            yield scan
        finally:
            scan.go_on.set()
