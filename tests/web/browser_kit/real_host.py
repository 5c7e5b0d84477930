"""A real ComfyUI for the browser: tiny models, a library of LoRAs, and nothing that pops up over the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostkit.models import lora_path, write_models
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_lora import write_sd15_lora

from .stub_host import QUIET

NEEDS_COMFYUI = [
    pytest.mark.host,
    pytest.mark.skipif(
        HostInstall.from_environment() is None, reason="needs a real ComfyUI: set COMFYUI_PATH and COMFYUI_PYTHON"
    ),
]


def make_base(base: Path, loras: Sequence[str]) -> Path:
    """`base` with this pack, the tiny checkpoint under its own name and SDXL's, and `loras` (names with suffix)."""
    make_base_directory(base)
    write_models(base, flux=False)
    for seed, name in enumerate(loras):
        write_sd15_lora(lora_path(base, name), seed=seed)
    checkpoints = base / "models" / "checkpoints"
    (checkpoints / "sd_xl_base_1.0.safetensors").symlink_to(checkpoints / "tiny_sd15.safetensors")
    return base


@contextmanager
def running(base: Path) -> Iterator[HostServer]:
    install = HostInstall.from_environment()
    assert install is not None, "the tests are skipped before this"
    with HostServer(install, base) as server:
        server.client.post("/settings", QUIET)
        yield server
