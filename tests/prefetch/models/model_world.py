"""The small world of `world`, with models beside the LoRAs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from warmstack.prefetch.models.file import ModelFile
from warmstack.prefetch.prefetcher import Prefetcher
from warmstack.prefetch.queue.job import QueuedJob

from ..world import CHUNK_BYTES, World, stock_graph


class ModelWorld(World):
    """`models` is the folder of the models, all of one kind; `found` the names that were looked up."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.models = root / "models"
        self.models.mkdir(parents=True)
        self.found: list[str] = []
        super().__init__(root / "loras", **{"just_in_time": False, **settings})

    def build(self, **changes: Any) -> Prefetcher:
        return super().build(**{"models": self.find, **changes})

    def find(self, kind: str, name: str) -> tuple[ModelFile, ...]:
        """As a host finds them; the name of a folder stands for all the shards in it."""
        self.found.append(name)
        path = self.models / name
        names = sorted(f"{name}/{shard}" for shard in os.listdir(path)) if path.is_dir() else [name]
        return tuple(
            ModelFile(kind, shard, str(self.models / shard), stat.st_size, stat.st_mtime_ns)
            for shard in names
            if (stat := _stat(self.models / shard)) is not None
        )

    def model(self, name: str, size_bytes: int = 8 * CHUNK_BYTES) -> str:
        path = self.models / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size_bytes))
        return name

    def submit_models(self, job_id: str, *models: str, loras: tuple[str, ...] = (), front: bool = False) -> None:
        """A job of stock loaders."""
        graph = stock_graph(*loras) | {
            f"m{i}": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}
            for i, name in enumerate(models)
        }
        self.queue.insert(
            sum(job.running for job in self.queue) if front else len(self.queue), QueuedJob(job_id, graph)
        )

    def read_models(self) -> list[str]:
        """Names of the models that were read, in order."""
        return [os.path.relpath(path, self.models) for path in self.page_reads if path.startswith(str(self.models))]

    def model_states(self) -> dict[str, dict[str, str]]:
        """job -> model -> state, as a status shows them."""
        return {job.job_id: {m.name: m.state for m in job.models} for job in self.prefetcher.status().queue}


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
