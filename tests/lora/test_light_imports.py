from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "safetensors", "pydantic", "aiohttp", "comfy", "diffusers")


@pytest.mark.parametrize("module", ["warmstack.lora", "warmstack.lora.library.catalog", "warmstack.lora.stacks.stack"])
def test_discovery_and_planning_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
