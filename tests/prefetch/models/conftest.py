"""A small world with models per test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .model_world import ModelWorld


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    world = ModelWorld(tmp_path)
    yield world
    await world.close()
