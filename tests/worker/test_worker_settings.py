"""LoRAWorkerConfig: what each setting does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from warmstack.worker.config import LoRAWorkerConfig
from warmstack.worker.lora_worker import LoRAWorker

MakeWorker = Callable[..., LoRAWorker]


def resident(worker: LoRAWorker) -> set[str]:
    return {view.name for view in worker.cache.snapshot().adapters if view.state == "ready"}


def test_discovery_lists_names_and_categories(make_worker: MakeWorker) -> None:
    found = {file.name: file.category for file in make_worker().discover()}
    assert found == {
        "characters/fox.safetensors": "characters",
        "details/grain.pt": "details",
        "details/soft.safetensors": "details",
        "styles/ink.safetensors": "styles",
        "styles/soft.safetensors": "styles",
        "styles/wash.safetensors": "styles",
    }


def test_memory_limit_is_the_budget(make_worker: MakeWorker) -> None:
    assert make_worker(memory_limit_mb=3).status().budget_bytes == 3 << 20


def test_without_caching_nothing_stays(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker(enable_caching=False)
    worker.apply_to_pipeline(pipeline, ["ink", "wash"])
    assert resident(worker) == set()


def test_cache_size_keeps_the_last_used(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker(cache_size=2)
    for name in ("ink", "wash", "ink", "fox"):
        worker.apply_to_pipeline(pipeline, [name])
    assert resident(worker) == {"styles/ink.safetensors", "characters/fox.safetensors"}


def test_memory_is_told_when_monitored(make_worker: MakeWorker) -> None:
    assert make_worker().status().process_bytes is None
    assert (make_worker(enable_memory_monitoring=True).status().process_bytes or 0) > 1 << 20


def test_status_counts_what_happened(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.apply_to_pipeline(pipeline, ["ink"])
    worker.apply_to_pipeline(pipeline, ["ink", "wash"])
    status = worker.status()
    assert (status.hits, status.misses, status.files) == (1, 2, 6)
    assert status.base_copy_bytes > 0
    worker.forget(pipeline)
    assert worker.status().base_copy_bytes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"lora_directories": []},
        {"lora_directories": "x", "memory_limit_mb": -1},
        {"lora_directories": "x", "cach": 1},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LoRAWorkerConfig(**wrong)


def test_one_directory_may_stand_alone(tmp_path: Path) -> None:
    assert LoRAWorkerConfig(lora_directories=tmp_path).lora_directories == (tmp_path,)  # type: ignore[arg-type]
