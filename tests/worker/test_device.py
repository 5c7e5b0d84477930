"""Adapters on the pipeline's device: the same weights to the last bit, and room for the picture first."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from warmstack.loaders.transfer import DeviceTransfer
from warmstack.loaders.upload.fake_device import FakeDevice
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.device.device_shelf import DeviceShelf
from warmstack.prefetch.settings import PrefetchSettings
from warmstack.worker.batch import Batch, run_batch
from warmstack.worker.config import LoRAWorkerConfig
from warmstack.worker.lora_worker import LoRAWorker
from warmstack.worker.request import QueueRequest, parse_queue

Weights = dict[str, torch.Tensor]
STACKS = [["styles/ink"], ["ink", "fox"], ["wash"], ["ink", "fox", "wash"]]


class Rig:
    """A worker whose shelf lies on a fake device, which is where the pipeline is."""

    def __init__(self, library: Path, budget_bytes: int = 1 << 30, **config: Any) -> None:
        self.device = FakeDevice(lag=0)
        transfer = DeviceTransfer(self.device, slots=2, slot_bytes=4096, fillers=2)
        self.shelf = DeviceShelf(transfer, ByteBudget(budget_bytes))
        self.worker = LoRAWorker(LoRAWorkerConfig(lora_directories=library, **config), shelf=self.shelf)
        self.worker.discover()


@pytest.fixture
def rig(library: Path) -> Rig:
    return Rig(library)


def unet_weights(pipeline: Any) -> Weights:
    parts = {"unet": pipeline.unet, "te": pipeline.text_encoder}
    return {
        f"{part}.{key}": value.clone() for part, model in parts.items() for key, value in model.state_dict().items()
    }


def assert_equal(ours: Weights, theirs: Weights) -> None:
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_weights_are_the_same_to_the_last_bit(
    names: list[str], pipeline: Any, rig: Rig, make_worker: Callable[..., LoRAWorker]
) -> None:
    strengths = [0.7, -0.4, 1.3][: len(names)]
    stock = make_worker()
    stock.apply_to_pipeline(pipeline, names, strengths)
    expected = unet_weights(pipeline)
    stock.remove_from_pipeline(pipeline)
    for outcome in ("miss", "hit"):
        applied = rig.worker.apply_to_pipeline(pipeline, names, strengths)
        assert [lora.device_outcome for lora in applied.loras] == [outcome] * len(names)
        assert_equal(unet_weights(pipeline), expected)
        rig.worker.remove_from_pipeline(pipeline)
    assert rig.device.overwritten == 0


def test_the_factors_really_come_from_the_device(pipeline: Any, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.Tensor] = []

    def watch(weight: torch.Tensor, loras: Any) -> torch.Tensor:
        used.extend(part for lora in loras for part in (lora.up, lora.down))
        return weight

    monkeypatch.setattr("warmstack.worker.base_weights.add_fused_", watch)
    rig.worker.apply_to_pipeline(pipeline, ["fox"])
    assert used
    assert all(rig.device.owns(part) or part.dtype == torch.float32 for part in used)
    assert any(rig.device.owns(part) for part in used)


def test_a_small_budget_uses_host_memory_and_changes_nothing(pipeline: Any, library: Path, rig: Rig) -> None:
    rig.worker.apply_to_pipeline(pipeline, ["ink", "fox"])
    expected = unet_weights(pipeline)
    rig.worker.remove_from_pipeline(pipeline)
    small = Rig(library, budget_bytes=10)
    applied = small.worker.apply_to_pipeline(pipeline, ["ink", "fox"])
    assert [lora.device_outcome for lora in applied.loras] == [None, None]
    assert_equal(unet_weights(pipeline), expected)
    assert small.device.copies == 0


def test_uses_end_with_the_application(pipeline: Any, rig: Rig) -> None:
    rig.worker.apply_to_pipeline(pipeline, ["ink"])
    # The picture is computed from now on: the adapter is not waited for that long.
    rig.device.read_later(rig.device.allocate(16, 0))
    (view,) = rig.shelf.snapshot().adapters
    assert view.uses == 0
    rig.shelf.clear()
    assert rig.shelf.snapshot().used_bytes == 0
    rig.device.compute_all()
    rig.worker.close()
    assert (rig.device.allocated_bytes, rig.device.pinned_bytes) == (0, 0)
    assert rig.worker.apply_to_pipeline(pipeline, ["ink"]).loras[0].device_outcome is None


def test_a_pipeline_elsewhere_is_served_from_host_memory(pipeline: Any, rig: Rig) -> None:
    rig.device.device = torch.device("meta")  # type: ignore[misc]
    applied = rig.worker.apply_to_pipeline(pipeline, ["ink"])
    assert applied.loras[0].device_outcome is None
    assert rig.device.copies == 0


def wait_until(condition: Callable[[], bool]) -> None:
    turn = threading.Event()
    while not condition():
        turn.wait(0.001)


def line(name: str, *loras: Any) -> str:
    return json.dumps({"id": name, "prompt": "a fox", "lora": list(loras), "steps": 1, "width": 64, "height": 64})


def paint(pipeline: Any, request: QueueRequest) -> Image.Image:
    return Image.new("L", (1, 1))


def test_a_queue_finds_its_adapters_on_the_device(pipeline: Any, rig: Rig, tmp_path: Path) -> None:
    lines = parse_queue([line("1", "ink"), line("2", "fox"), line("3", "ink", "fox")])
    settings = PrefetchSettings(device_tier=True)

    def wait_for_the_next(pipeline: Any, request: QueueRequest) -> Image.Image:
        if request.id == "1":
            wait_until(lambda: [view.state for view in rig.shelf.snapshot().adapters] == ["ready", "ready"])
        return paint(pipeline, request)

    report = run_batch(rig.worker, Batch(lines, pipeline, wait_for_the_next, tmp_path, settings), "prefetch")
    outcomes = [[lora.device_outcome for lora in request.loras] for request in report.requests]
    assert outcomes[1:] == [["hit"], ["hit", "hit"]]
    assert report.as_json()["device"]["hits"] >= 3  # type: ignore[index]
    assert json.dumps(report.as_json())


@pytest.mark.parametrize(
    "problem",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ],
    ids=["allocator", "cublas", "driver"],
)
def test_adapters_give_way_to_a_picture_that_finds_no_memory(
    problem: RuntimeError, pipeline: Any, rig: Rig, tmp_path: Path
) -> None:
    """All but those of the picture itself, which is tried again."""
    limit_bytes = rig.shelf.limit_bytes
    seen: list[int] = []

    def short_of_memory(pipeline: Any, request: QueueRequest) -> Image.Image:
        seen.append(rig.device.allocated_bytes)
        if len(seen) == 2:
            raise problem
        return paint(pipeline, request)

    lines = parse_queue([line("1", "fox"), line("2", "ink")])
    report = run_batch(rig.worker, Batch(lines, pipeline, short_of_memory, tmp_path), "on-demand")
    assert report.failures == ()
    fox_bytes, both_bytes, ink_bytes = seen
    assert min(fox_bytes, ink_bytes) > 0
    assert ink_bytes == both_bytes - fox_bytes
    assert rig.shelf.limit_bytes == limit_bytes // 2
    assert rig.worker.yield_device_memory()
    assert rig.device.allocated_bytes == 0


def test_nothing_gives_way_to_a_picture_that_fails_for_another_reason(pipeline: Any, rig: Rig, tmp_path: Path) -> None:
    limit_bytes = rig.shelf.limit_bytes

    def broken(pipeline: Any, request: QueueRequest) -> Image.Image:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    report = run_batch(rig.worker, Batch(parse_queue([line("1", "fox")]), pipeline, broken, tmp_path), "on-demand")
    assert len(report.failures) == 1
    assert rig.shelf.limit_bytes == limit_bytes
    assert rig.shelf.snapshot().used_bytes > 0


def test_without_anything_to_give_the_failure_is_the_requests(pipeline: Any, rig: Rig, tmp_path: Path) -> None:
    def no_memory(pipeline: Any, request: QueueRequest) -> Image.Image:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    report = run_batch(rig.worker, Batch(parse_queue([line("1")]), pipeline, no_memory, tmp_path), "on-demand")
    assert report.requests[0].problems == ("CUDA out of memory",)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, ""),
        ({"device": "cuda", "device_budget_mb": 0}, ""),
        ({"device": "cpu"}, "adapters are kept on CUDA devices only, not on cpu; run the pipeline on one"),
    ],
)
def test_the_configuration_decides_whether_there_is_a_shelf(
    library: Path, config: dict[str, Any], problem: str
) -> None:
    status = LoRAWorker(LoRAWorkerConfig(lora_directories=library, **config)).status()
    assert (status.device, status.device_problem) == (None, problem)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_status_says_so(library: Path) -> None:
    status = LoRAWorker(LoRAWorkerConfig(lora_directories=library, device="cuda", device_budget_mb=64)).status()
    assert status.device is None
    assert "torch sees no CUDA device here" in status.device_problem
