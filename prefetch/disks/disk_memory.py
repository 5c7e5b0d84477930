"""DiskMemory: how many readers each disk was measured to take, kept over restarts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

from ..state_file import StateFile

_VERSION = 1
_LASTS = timedelta(days=90)
"""After a while a disk may be fuller, older or another one under the same name."""


class Measurement(NamedTuple):
    """`readers` that paid, at `rates` (bytes per second with 1, 2 and 4), on that day."""

    readers: int
    rates: tuple[int, ...]
    measured_at: str


class DiskMemory:
    """By a label of the disk. Blocking, one user at a time. A file that is lost costs half a second of measuring.
    `folder` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = StateFile(folder, "disks.json", _VERSION, "What was measured of the disks")

    def recall(self, now: datetime | None = None) -> dict[str, Measurement]:
        """What is known and recent enough."""
        now = now or datetime.now(timezone.utc)
        nothing: dict[str, Measurement] = {}
        return self._file.read(lambda document: _recent(document, now), nothing)

    def keep(self, label: str, readers: int, rates: tuple[float, ...]) -> None:
        """Adds one measurement of now."""
        measured_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        known = {**self.recall(), label: Measurement(readers, tuple(map(round, rates)), measured_at)}
        self._file.replace({"disks": {label: m._asdict() for label, m in known.items()}})


def _recent(document: dict[str, Any], now: datetime) -> dict[str, Measurement]:
    known = {label: _measurement(entry) for label, entry in document["disks"].items()}
    return {label: m for label, m in known.items() if now - datetime.fromisoformat(m.measured_at) < _LASTS}


def _measurement(entry: dict[str, object]) -> Measurement:
    readers, rates, measured_at = entry["readers"], entry["rates"], entry["measured_at"]
    whole = isinstance(rates, list) and all(isinstance(rate, int) for rate in rates)
    if not (whole and isinstance(rates, list) and isinstance(readers, int) and isinstance(measured_at, str)):
        raise TypeError("not a measurement")
    return Measurement(min(max(readers, 1), 4), tuple(rates), measured_at)
