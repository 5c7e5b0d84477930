"""Replacing a small file in one step: who reads finds what was there before or what is there now, whole."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

_IS_WINDOWS = os.name == "nt"
_WAITS_S = (0.01, 0.05, 0.2, 0.5)


def replace_text(path: Path, text: str) -> None:
    """Raises OSError, and leaves the old file and nothing else, when `text` cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads or processes may write the same file; the later one wins.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        draft.write_text(text, "utf-8")
        _put_in_place(draft, path)
    finally:
        with suppress(OSError):  # it would hide why
            draft.unlink(missing_ok=True)


def _put_in_place(draft: Path, path: Path) -> None:
    for wait_s in _WAITS_S if _IS_WINDOWS else ():
        try:
            os.replace(draft, path)
        except PermissionError:
            time.sleep(wait_s)  # a virus scanner or a search index looks at one of them, for milliseconds
        else:
            return
    os.replace(draft, path)
