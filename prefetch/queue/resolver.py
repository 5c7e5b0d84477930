"""Resolver: names -> files as they are on disk now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ...lora.library.catalog import Ambiguous, Found, LoraCatalog, Missing
from ...lora.library.categories import folder_category
from ...lora.library.file import LoraFile, as_on_disk
from .job import Asked
from .need import AWAY, UNRESOLVED, Resolution


class Resolver:
    """`refresh`, `resolve` and `resolve_one` block. Holds nothing but the catalog."""

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

    def is_doubtful(self, file: LoraFile) -> bool:
        """True when the file could not be opened: a scan may tell more."""
        return self._catalog.snapshot.is_doubtful(file)

    def refresh(self) -> None:
        """Scans the folders again."""
        self._catalog.refresh()

    def resolve(self, asked: Iterable[Asked], stop: Callable[[], bool]) -> Mapping[Asked, Resolution]:
        """Each of `asked` looked up and stat'ed; fewer when `stop()` turns true."""
        resolutions: dict[Asked, Resolution] = {}
        for one in asked:
            if stop():
                break
            resolutions[one] = self.resolve_one(one)
        return resolutions

    def resolve_one(self, asked: Asked, *, suggest: bool = False) -> Resolution:
        """`suggest`: near misses of a missing name too, which take milliseconds in a large library."""
        match = self._catalog.resolve(*asked)
        # While headers are read, the first time for minutes, a queue is planned by the names that are known.
        is_settled = not self._catalog.is_refreshing
        if isinstance(match, Found) and is_settled and self._catalog.is_overtaken(asked.name, match):
            match = self._catalog.catch_up(*asked)
        if not isinstance(match, Found):
            return _without_file(match, suggest=suggest)
        file = as_on_disk(match.file)
        return AWAY if file is None else self._found(file, is_replaced=file.key != match.file.key)

    def by_scan(self, asked: Asked) -> Resolution:
        """What the last scan has found. Looks at no disk."""
        match = self._catalog.resolve(*asked)
        return self._found(match.file) if isinstance(match, Found) else _without_file(match)

    def _found(self, file: LoraFile, *, is_replaced: bool = False) -> Resolution:
        """`is_replaced`: since the last scan, so that nobody has read its header."""
        may_have_category = self._catalog.snapshot.may_have_category(file)
        if is_replaced:
            may_have_category = not folder_category(file.name).name
        return Resolution("found", file, is_categorised=not may_have_category)


def _without_file(match: Ambiguous | Missing, *, suggest: bool = False) -> Resolution:
    if isinstance(match, Ambiguous):
        return Resolution("ambiguous", candidates=match.candidates)
    return Resolution("missing", candidates=match.suggestions) if suggest else UNRESOLVED
