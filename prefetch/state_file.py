"""StateFile: one small JSON file that outlives a restart and may be lost without harm."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..lora.atomic_file import replace_text

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BYTES = 4 << 20
"""A file that has grown beyond this is not ours any more."""


class StateFile:
    """Blocking, one user at a time. A damaged file, or one of another version, is an empty one; what cannot be written
    lasts until the restart. `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, name: str, version: int, holds: str) -> None:
        """`holds` begins the line that tells of a file which cannot be used."""
        self._path = None if folder is None else folder / name
        self._version = version
        self._holds = holds

    def read(self, parse: Callable[[Any], T], otherwise: T) -> T:
        """What `parse` makes of the document; `otherwise` when there is none or it raises."""
        if self._path is None:
            return otherwise
        try:
            document = json.loads(_content(self._path))
            return parse(document) if document.get("version") == self._version else otherwise
        except FileNotFoundError:
            return otherwise
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            logger.warning("%s: unreadable (%s), so it is as if new", self._holds, type(error).__name__)
            return otherwise

    def replace(self, document: dict[str, Any]) -> None:
        """In one step: who reads finds the file before or after it, whole."""
        if self._path is None:
            return
        try:
            replace_text(self._path, json.dumps({"version": self._version, **document}) + "\n")
        except OSError as error:
            logger.warning("%s: lasts until the restart (%s)", self._holds, error.strerror)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError("too long")
    return content
