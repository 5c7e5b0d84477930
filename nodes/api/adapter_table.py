"""AdapterTable: LoRA files joined with what is known of them in memory and in the queue, searched, sorted, paged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ...loaders.errors import SafetensorsLoadError
from ...loaders.system.page_cache import resident_bytes
from ...lora.cache.cache_stats import AdapterView, CacheSnapshot
from ...lora.library.file import LoraFile
from ...lora.library.spelling import folded
from ...prefetch.status import PrefetchStatus
from .adapter_query import AdapterQuery

Row = dict[str, Any]


class AdapterTable:
    """One moment's table. `pages` tells how many bytes of a file are in the page cache (None: cannot tell); it costs a
    system call per file, so only the rows of the page are asked unless the filter or the order needs all."""

    def __init__(
        self,
        files: Iterable[LoraFile],
        cache: CacheSnapshot,
        prefetch: PrefetchStatus,
        pages: Callable[[str], int | None] = resident_bytes,
    ) -> None:
        self._files = tuple(files)
        self._views = {view.key.path: view for view in cache.adapters}
        self._uses = Counter(name for job in prefetch.queue for name in {a.name for a in job.adapters})
        self._pages = pages

    def page(self, query: AdapterQuery) -> Row:
        """`{total, offset, adapters}`: `total` counts the rows that match, `adapters` holds those of the page."""
        wanted = folded(query.search)
        files = [file for file in self._files if wanted in folded(file.name)]
        if query.state or query.sort == "state":
            rows = [row for row in map(self._row, files) if query.state in ("", row["state"])]
            column = "bytes" if query.sort == "size" else query.sort
            rows.sort(key=lambda row: (row[column], row["name"]), reverse=query.descending)
            return _paged(query, len(rows), rows[query.offset : query.offset + query.limit])
        files.sort(key=self._sort_key(query.sort), reverse=query.descending)
        shown = files[query.offset : query.offset + query.limit]
        return _paged(query, len(files), [self._row(file) for file in shown])

    def _sort_key(self, sort: str) -> Callable[[LoraFile], tuple[Any, str]]:
        keys: dict[str, Callable[[LoraFile], tuple[Any, str]]] = {
            "name": lambda file: ("", file.name),
            "size": lambda file: (file.size_bytes, file.name),
            "category": lambda file: (file.category, file.name),
            "base_model": lambda file: (file.base_model, file.name),
            "uses": lambda file: (self._uses[file.name], file.name),
        }
        return keys[sort]

    def _row(self, file: LoraFile) -> Row:
        view = self._views.get(file.path)
        return {
            "name": file.name,
            "category": file.category,
            "category_evidence": file.category_evidence,
            "base_model": file.base_model,
            "base_model_evidence": file.base_model_evidence,
            "rank": file.rank,
            "bytes": file.size_bytes,
            "state": self._state(file, view),
            "pinned": view is not None and view.pinned,
            "leases": view.leases if view else 0,
            "hits": view.hits if view else 0,
            "uses": self._uses[file.name],
            "problem": file.problem or (view.problem if view else ""),
        }

    def _state(self, file: LoraFile, view: AdapterView | None) -> str:
        if view is not None:
            return view.state
        if file.problem:
            return "failed"
        try:
            cached_bytes = self._pages(file.path)
        except (OSError, SafetensorsLoadError):  # it has gone since the last scan
            return "cold"
        return "page" if cached_bytes is not None and cached_bytes >= file.size_bytes > 0 else "cold"


def _paged(query: AdapterQuery, total: int, rows: list[Row]) -> Row:
    return {"total": total, "offset": query.offset, "adapters": rows}
