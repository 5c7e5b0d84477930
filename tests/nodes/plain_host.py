"""A host without a server, and the LoRAs on its disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from warmstack.nodes.server.memory_state import MemoryState
from warmstack.prefetch.queue.job import QueuedJob


def write_lora(folder: Path, name: str, rank: int = 4, metadata: dict[str, str] | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"m.lora_A.weight": torch.ones(rank, 64), "m.lora_B.weight": torch.ones(64, rank)}
    save_file(tensors, path, metadata)


def stack_prompt(*names: str) -> dict[str, Any]:
    rows = json.dumps([{"name": name, "strength_model": 1.0} for name in names])
    return {
        "1": {"class_type": "WarmStackLoadLoraStack", "inputs": {"model": ["0", 0], "loras": rows}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }


class PlainHost:
    """`Host` without a server; memory fails when asked to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: tuple[QueuedJob, ...] = ()
        self.state: Callable[[], Path | None] = lambda: folder / "state"
        self.memory_fails = False
        self.kept_free_bytes = 6 << 30

    def lora_folders(self) -> tuple[str, ...]:
        return (str(self.folder / "loras"), str(self.folder / "not there"))

    def state_directory(self) -> Path | None:
        return self.state()

    def model_folders(self, kind: str) -> tuple[str, ...]:
        return (str(self.folder / kind),)

    def queued_jobs(self) -> tuple[QueuedJob, ...]:
        return self.jobs

    def memory(self) -> MemoryState:
        if self.memory_fails:
            raise OSError("no /proc")
        return MemoryState(64 << 30, 32 << 30, 8 << 30, self.headroom_bytes())

    def headroom_bytes(self) -> int:
        if self.memory_fails:
            raise ImportError("an older host")
        return self.kept_free_bytes

    def step_progress(self) -> float | None:
        if self.memory_fails:
            raise ImportError("an older host")
        return 0.25

    def device_tier_refusal(self) -> str:
        if self.memory_fails:
            raise RuntimeError("no driver")
        return "the host brings patches to the device itself (dynamic VRAM)"
