"""Resolver: names -> files as they are on disk now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ...lora.catalog import Ambiguous, Found, LoraCatalog
from ...lora.file import LoraFile
from .need import Resolution


class Resolver:
    """Blocking; for a thread. Holds nothing but the catalog."""

    def __init__(self, catalog: LoraCatalog) -> None:
        self._catalog = catalog

    @property
    def revision(self) -> int:
        """Changes when a name may resolve differently."""
        return self._catalog.snapshot.revision

    @property
    def files(self) -> tuple[LoraFile, ...]:
        """The library; the same object while unchanged."""
        return self._catalog.snapshot.files

    def refresh(self) -> None:
        """Scans the folders again."""
        self._catalog.refresh()

    def resolve(self, names: Iterable[str], stop: Callable[[], bool]) -> Mapping[str, Resolution]:
        """Each of `names` looked up and stat'ed; fewer when `stop()` turns true."""
        resolutions: dict[str, Resolution] = {}
        for name in names:
            if stop():
                break
            resolutions[name] = self.resolve_one(name)
        return resolutions

    def resolve_one(self, name: str, *, suggest: bool = False) -> Resolution:
        """`suggest`: near misses of a missing name too, which take milliseconds in a large library."""
        match = self._catalog.resolve(name)
        if isinstance(match, Found):
            file = _as_on_disk(match.file)
            return Resolution("missing") if file is None else Resolution("found", file)
        if isinstance(match, Ambiguous):
            return Resolution("ambiguous", candidates=tuple(match.candidates))
        return Resolution("missing", candidates=match.suggestions if suggest else ())


def _as_on_disk(file: LoraFile) -> LoraFile | None:
    """`file` with its present size and mtime; None when it is gone. What was wrong with other content is forgotten."""
    try:
        found = os.stat(file.path)
    except OSError:
        return None
    if (found.st_size, found.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
        return file
    return replace(file, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, problem="")
