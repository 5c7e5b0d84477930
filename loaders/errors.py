"""Errors of `loaders`.

SafetensorsLoadError                a weight file cannot be loaded; names the file and the cure
├── SafetensorsValidationError      the header or an index lies; nothing beyond the header was allocated
├── NoCapableLoaderError            every strategy refused; `refusals` says why, each
├── PickledFileError                a pickle that holds more than tensors, or where only safetensors may be read
└── LoadCancelledError              the caller cancelled between two chunks
"""

from __future__ import annotations

from collections.abc import Mapping


class SafetensorsLoadError(Exception):
    """A weight file cannot be loaded. `path` is the file, `reason` one line with the cure."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class SafetensorsValidationError(SafetensorsLoadError):
    """Header, offsets or index contradict the file. `key` is the tensor at fault, or ""."""

    def __init__(self, path: str, reason: str, key: str = "") -> None:
        super().__init__(path, f"{key!r}: {reason}" if key else reason)
        self.key = key


class NoCapableLoaderError(SafetensorsLoadError):
    """No strategy can load this file as asked. `refusals` maps strategy name to its reason."""

    def __init__(self, path: str, refusals: Mapping[str, str]) -> None:
        super().__init__(path, "no strategy can load it: " + "; ".join(f"{n}: {r}" for n, r in refusals.items()))
        self.refusals = dict(refusals)


class PickledFileError(SafetensorsLoadError):
    """A pickle that holds more than tensors, or that is met where only safetensors may be opened. The pickle of a
    stranger is code."""


class LoadCancelledError(SafetensorsLoadError):
    """The load was cancelled; whatever it had read is dropped."""


def damaged(path: str, fault: str, key: str = "") -> SafetensorsValidationError:
    """For a header that no writer puts so: only another copy of the file cures it."""
    return SafetensorsValidationError(path, f"{fault}; the file is damaged, download it again", key)
