"""LoadProgress: how far a load is, for whatever shows it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from .files.header import SafetensorsHeader
from .gguf.header import GgufHeader


class LoadProgress(NamedTuple):
    """How far a load is, after each chunk that has arrived."""

    done_bytes: int
    total_bytes: int
    path: str
    """The file that the chunk belongs to."""
    tensor: str = ""
    """The tensor in which the chunk ends; "" at the end of the load."""


Progress = Callable[[LoadProgress], None]
"""May be called from a reading thread."""


class Bar(Protocol):
    """What a `tqdm` bar has."""

    total: float | None
    n: float

    def update(self, n: float) -> object: ...


def shown_on(bar: Bar) -> Progress:
    """A callback that moves a tqdm bar (`unit="B", unit_scale=True`). ComfyUI's ProgressBar needs none:
    `lambda progress: bar.update_absolute(*progress[:2])`."""

    def show(progress: LoadProgress) -> None:
        bar.total = progress.total_bytes
        bar.update(progress.done_bytes - bar.n)

    return show


class ProgressMeter:
    """Turns the chunks of any number of reading threads into one progress."""

    def __init__(
        self,
        total_bytes: int,
        wanted: Iterable[tuple[SafetensorsHeader | GgufHeader, Iterable[str]]],
        progress: Progress | None,
    ) -> None:
        """`wanted` are the keys of each file that are loaded, and therefore named."""
        self.total_bytes = total_bytes
        self._progress = progress
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._last_path = ""
        self._starts = {} if progress is None else {header.path: _Starts(header, keys) for header, keys in wanted}

    def add(self, path: str, nbytes: int, at: int | str = "") -> None:
        """`nbytes` of `path`, up to byte `at` of it or all of the tensor `at`, have arrived."""
        if self._progress is None:
            return
        tensor = at if isinstance(at, str) else self._starts[path].tensor_before(at)
        with self._lock:
            # Whole blocks, small holes and a second try count more bytes than the tensors have.
            self._done_bytes = min(self._done_bytes + nbytes, self.total_bytes)
            self._last_path = path
            self._progress(LoadProgress(self._done_bytes, self.total_bytes, path, tensor))

    def finish(self, path: str) -> None:
        """Say 100% where mapped tensors were never read; `path` is for a load in which nothing was."""
        self.add(self._last_path or path, self.total_bytes - self._done_bytes)


class _Starts:
    def __init__(self, header: SafetensorsHeader | GgufHeader, keys: Iterable[str]) -> None:
        # Of two at one place the first is empty.
        self._keys = sorted(keys, key=lambda key: (header.tensors[key].start, header.tensors[key].end))
        self._starts = [header.data_start + header.tensors[key].start for key in self._keys]

    def tensor_before(self, offset: int) -> str:
        """The tensor that byte `offset - 1` of the file belongs to, or the last one before it: reads of whole blocks
        end in a tensor that nobody wants."""
        return self._keys[max(bisect_left(self._starts, offset) - 1, 0)] if self._keys else ""
