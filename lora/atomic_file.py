"""Replacing a small file in one step: who reads finds what was there before or what is there now, whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Raises OSError, and leaves the old file and nothing else, when `text` cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads or processes may write the same file; the later one wins.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        draft.write_text(text, "utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
