"""A LoRA file and what the disk says of it now."""

from __future__ import annotations

import os
from pathlib import Path

from warmstack.lora.library.file import LoraFile, as_on_disk


def test_a_file_is_what_the_disk_says_now(tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    path.write_bytes(b"old")
    known = LoraFile("ink", str(path), 3, os.stat(path).st_mtime_ns, category="styles", problem="cut short")
    assert as_on_disk(known) == known
    path.write_bytes(b"longer")
    now = as_on_disk(known)
    assert now is not None
    assert (now.size_bytes, now.category) == (6, "styles")
    assert now.key != known.key
    assert now.problem == "", "that was other content"
    path.unlink()
    assert as_on_disk(known) is None
