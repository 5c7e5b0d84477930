"""DiskMemory: how many readers each disk was measured to take, kept over restarts."""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_FILE = "disks.json"
_VERSION = 1
_LASTS = timedelta(days=90)
"""After a while a disk may be fuller, older or another one under the same name."""


class Measurement(NamedTuple):
    """`readers` that paid, at `rates` (bytes per second with 1, 2 and 4), on that day."""

    readers: int
    rates: tuple[int, ...]
    measured_at: str


class DiskMemory:
    """By a label of the disk. Blocking, one user at a time. A damaged file is an empty one, an unwritable one lasts
    until the restart: either costs half a second of measuring. `folder` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / _FILE

    def recall(self, now: datetime | None = None) -> dict[str, Measurement]:
        """What is known and recent enough."""
        now = now or datetime.now(timezone.utc)
        try:
            document = json.loads(self._path.read_bytes()) if self._path is not None else {}
            if document.get("version") != _VERSION:
                return {}
            known = {label: _measurement(entry) for label, entry in document["disks"].items()}
            return {label: m for label, m in known.items() if now - datetime.fromisoformat(m.measured_at) < _LASTS}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            logger.warning(
                "What was measured of the disks is unreadable (%s); it is measured again", type(error).__name__
            )
            return {}

    def keep(self, label: str, readers: int, rates: tuple[float, ...]) -> None:
        """Adds one measurement of now, as one replacement of the file."""
        if self._path is None:
            return
        measured_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        known = {**self.recall(), label: Measurement(readers, tuple(map(round, rates)), measured_at)}
        document = {"version": _VERSION, "disks": {label: m._asdict() for label, m in known.items()}}
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
            os.replace(draft, self._path)
        except OSError as error:
            logger.warning("What was measured of the disks lasts until the restart: %s", error.strerror)


def _measurement(entry: dict[str, object]) -> Measurement:
    readers, rates, measured_at = entry["readers"], entry["rates"], entry["measured_at"]
    whole = isinstance(rates, list) and all(isinstance(rate, int) for rate in rates)
    if not (whole and isinstance(rates, list) and isinstance(readers, int) and isinstance(measured_at, str)):
        raise TypeError("not a measurement")
    return Measurement(min(max(readers, 1), 4), tuple(rates), measured_at)
