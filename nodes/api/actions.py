"""Actions: what a person or a program asks of single adapters by name: warm, evict, pin, unpin."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...loaders.errors import SafetensorsLoadError
from ...loaders.system.daemon_pool import DaemonPool
from ...loaders.system.page_cache import warm_file
from ...loaders.system.rate_limit import RateLimit
from ...lora.cache.cache import AdapterCache
from ...lora.cache.cache_stats import AdapterView
from ...lora.library.catalog import Ambiguous, Found, LoraCatalog, Missing
from ...lora.library.file import AdapterKey, LoraFile
from ...prefetch.reading.gate import Gate

logger = logging.getLogger("warmstack")

Row = dict[str, Any]


class Actions:
    """Thread-safe; blocks for one scan of the folders at most. Reads asked for by hand go one at a time in a thread
    of their own, and only into free room: ten clicks must neither seek a disk in ten places nor push out what the
    queue needs."""

    def __init__(
        self,
        catalog: LoraCatalog,
        cache: AdapterCache,
        limiter: Callable[[], RateLimit | None],
        warmed: Callable[[AdapterKey, int, float], None] = lambda key, nbytes, seconds: None,
    ) -> None:
        """`limiter()` is what all background reads share at this moment; None: as fast as the disk. `warmed` is told,
        in the thread that reads, what has gone into the page cache and how long it took."""
        self._catalog = catalog
        self._cache = cache
        self._limiter = limiter
        self._warmed = warmed
        self._closed = threading.Event()
        self._pool = DaemonPool(1, "warmstack-asked")
        self._verbs: dict[str, Callable[[LoraFile], Row]] = {
            "warm": self._warm,
            "evict": self._evict,
            "pin": self._pin,
            "unpin": self._unpin,
        }

    def act(self, verb: str, names: Sequence[str]) -> list[Row]:
        """One row per name: `{name, file, state, ...}`; state `missing` or `ambiguous` comes with `candidates`."""
        if any(isinstance(self._catalog.resolve(name), Missing) for name in names):
            self._catalog.refresh()
        return [self._act_on(self._verbs[verb], name) for name in names]

    def evict_unpinned(self) -> list[Row]:
        """Everything that is resident and not pinned; what is in use stays and says so."""
        unpinned = [view for view in self._cache.snapshot().adapters if view.state == "ready" and not view.pinned]
        return [{"name": view.name, "file": view.name, **self._evict_view(view)} for view in unpinned]

    def close(self) -> None:
        """Stops the read in progress within a chunk."""
        self._closed.set()
        self._pool.close()

    def _act_on(self, act: Callable[[LoraFile], Row], name: str) -> Row:
        match = self._catalog.resolve(name)
        if isinstance(match, Found):
            return {"name": name, "file": match.file.name, **act(match.file)}
        if isinstance(match, Ambiguous):
            return {"name": name, "state": "ambiguous", "candidates": list(match.candidates)}
        return {"name": name, "state": "missing", "candidates": list(match.suggestions)}

    def _warm(self, file: LoraFile) -> Row:
        view = self._view_of(file)
        if view is not None and view.state != "failed":
            return {"state": view.state}
        if file.is_pickle:
            return {
                "state": "refused",
                "reason": "a pickle is only read when a job loads it; convert it to safetensors",
            }
        if file.problem:
            return {"state": "failed", "reason": file.problem}
        try:
            self._pool.submit(partial(self._read, file))
        except RuntimeError:
            return {"state": "refused", "reason": "the server is going down"}
        return {"state": "loading"}

    def _read(self, file: LoraFile) -> None:
        """Into memory if there is free room in the budget, else into the page cache. A failure shows in the status."""
        limiter = Gate(self._limiter, self._closed.is_set)
        outcome = self._cache.prefetch(file, cancelled=self._closed.is_set, limiter=limiter)
        if outcome == "no_room":
            started_s = time.monotonic()
            try:
                nbytes = warm_file(file.path, cancelled=self._closed.is_set, limiter=limiter)
                self._warmed(file.key, nbytes, time.monotonic() - started_s)
            except (OSError, SafetensorsLoadError):
                logger.debug("the pages of %s could not be warmed", file.name)

    def _evict(self, file: LoraFile) -> Row:
        view = self._view_of(file)
        return {"state": "cold"} if view is None or view.state == "failed" else self._evict_view(view)

    def _evict_view(self, view: AdapterView) -> Row:
        if self._cache.evict(view.key):
            return {"state": "cold", "bytes": view.nbytes}
        return {"state": view.state, "reason": "pinned" if view.pinned else "in use"}

    def _pin(self, file: LoraFile) -> Row:
        """Pinned means kept in memory, so it is brought there too."""
        self._cache.pin(file.key)
        return {**self._warm(file), "pinned": True}

    def _unpin(self, file: LoraFile) -> Row:
        self._cache.unpin(file.key)
        view = self._view_of(file)
        return {"state": view.state if view else "cold", "pinned": False}

    def _view_of(self, file: LoraFile) -> AdapterView | None:
        return next((view for view in self._cache.snapshot().adapters if view.key.path == file.path), None)
