"""Failures: files that cannot be loaded, remembered until they change."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import AdapterLoadError
from ..library.file import AdapterKey, LoraFile


class Failures:
    """Whoever owns it holds a lock around every call."""

    def __init__(self) -> None:
        self._by_path: dict[str, tuple[LoraFile, AdapterLoadError]] = {}

    def __len__(self) -> int:
        return len(self._by_path)

    def __iter__(self) -> Iterator[tuple[LoraFile, AdapterLoadError]]:
        return iter(self._by_path.values())

    def note(self, file: LoraFile, error: AdapterLoadError) -> None:
        """Of what another reading would find again; a file that is gone or being written is not of that kind."""
        if type(error) is AdapterLoadError:
            self._by_path[file.path] = file, error

    def raise_for(self, file: LoraFile) -> None:
        """Raises AdapterLoadError, a new one each time: the first one's frames keep memory."""
        _, error = self._by_path.get(file.path, (None, None))
        if error is not None:
            raise AdapterLoadError(file.name, error.reason)

    def forget_older(self, path: str, key: AdapterKey | None) -> None:
        """The file at `path` is `key` now, or gone."""
        file, _ = self._by_path.get(path, (None, None))
        if file is not None and file.key != key:
            del self._by_path[path]

    def clear(self) -> None:
        self._by_path.clear()
