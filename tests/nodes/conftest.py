"""A host with three LoRAs, two of which answer to one stem."""

from __future__ import annotations

from pathlib import Path

import pytest

from .plain_host import PlainHost, write_lora


@pytest.fixture
def plain(tmp_path: Path) -> PlainHost:
    for name in ("styles/ink.safetensors", "styles/oil.safetensors", "other/ink.safetensors"):
        write_lora(tmp_path / "loras", name)
    return PlainHost(tmp_path)
