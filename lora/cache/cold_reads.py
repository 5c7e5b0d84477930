"""ColdReads: seconds that each file took to read when it was not in memory."""

from __future__ import annotations

from ..library.file import AdapterKey


class ColdReads:
    """One entry per path: an old content's time goes."""

    def __init__(self) -> None:
        self._by_path: dict[str, tuple[AdapterKey, float]] = {}

    def record(self, key: AdapterKey, seconds: float) -> None:
        """The slowest read of one content counts: the others found it in the page cache."""
        self._by_path[key.path] = key, max(seconds, self.seconds(key))

    def seconds(self, key: AdapterKey) -> float:
        """0 when no read of this content was measured."""
        known_key, known_s = self._by_path.get(key.path, (None, 0.0))
        return known_s if known_key == key else 0.0
