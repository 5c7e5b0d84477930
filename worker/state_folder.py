"""Where the command line keeps what it learned of a library between runs: headers, disks, habits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_state_path

INDEX_NAME = "index.json"


def index_path(loras: Sequence[Path], folder: Path | None = None) -> Path:
    """The catalog's index in `folder`; None: in one of its own for `loras` below what the system keeps for programs'
    state. All that lies there may be deleted at any time. It need not exist yet."""
    return (folder or user_state_path("warmstack", appauthor=False) / _label(loras)) / INDEX_NAME


def _label(loras: Sequence[Path]) -> str:
    """One index for two libraries would forget the one at each run over the other."""
    paths = "\0".join(str(path.resolve()) for path in loras)
    return hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()[:16]
