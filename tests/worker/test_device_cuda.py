"""LoRAWorker with adapters on a real GPU: bit for bit what it is without them."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from warmstack.loaders.transfer import DeviceTransfer
from warmstack.loaders.upload.cuda_device import CudaDevice
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.device.device_shelf import DeviceShelf
from warmstack.prefetch.settings import PrefetchSettings
from warmstack.worker.batch import Batch, run_batch
from warmstack.worker.config import LoRAWorkerConfig
from warmstack.worker.lora_worker import LoRAWorker
from warmstack.worker.pipelines import Generator
from warmstack.worker.report import compare_images
from warmstack.worker.request import QueueRequest, parse_queue

pytestmark = pytest.mark.gpu


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def on_gpu(sdxl: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    pipeline = copy.copy(sdxl)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        setattr(pipeline, part, copy.deepcopy(getattr(sdxl, part)).to("cuda", request.param))
    yield pipeline


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    parts = {part: getattr(pipeline, part) for part in ("unet", "text_encoder", "text_encoder_2")}
    return {
        f"{part}.{key}": value.clone() for part, model in parts.items() for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("names", [["styles/ink"], ["ink", "fox"], ["wash"], ["ink", "fox", "wash"]], ids="+".join)
def test_weights_are_the_same_to_the_last_bit(
    names: list[str], on_gpu: Any, library: Path, make_worker: Callable[..., LoRAWorker]
) -> None:
    base = weights(on_gpu)
    stock = make_worker()
    stock.apply_to_pipeline(on_gpu, names)
    expected = weights(on_gpu)
    stock.remove_from_pipeline(on_gpu)
    worker = LoRAWorker(LoRAWorkerConfig(lora_directories=library, device="cuda", device_budget_mb=64))
    worker.discover()
    assert worker.status().device_problem == ""
    for outcome in ("miss", "hit"):
        torch.cuda._sleep(20_000_000)
        applied = worker.apply_to_pipeline(on_gpu, names)
        ours = weights(on_gpu)
        worker.remove_from_pipeline(on_gpu)
        assert [lora.device_outcome for lora in applied.loras] == [outcome] * len(names)
        assert all(torch.equal(ours[key], expected[key]) for key in expected)
        assert all(torch.equal(value, base[key]) for key, value in weights(on_gpu).items())
    worker.close()


def line(name: str, *loras: str) -> str:
    return json.dumps({"id": name, "prompt": "a fox", "lora": loras, "steps": 1, "width": 64, "height": 64})


@pytest.mark.parametrize("on_gpu", [torch.float32], ids=str, indirect=True)
def test_a_queues_pictures_are_the_same_with_its_adapters_sent_ahead(
    on_gpu: Any, library: Path, tmp_path: Path, make_worker: Callable[..., LoRAWorker]
) -> None:
    on_gpu.vae = copy.deepcopy(on_gpu.vae).to("cuda")
    requests = parse_queue([line("1", "ink"), line("2", "fox", "ink")])
    stock = Batch(requests, on_gpu, Generator(), tmp_path / "on-demand")
    run_batch(make_worker(), stock, "on-demand")
    device = CudaDevice()
    shelf = DeviceShelf(DeviceTransfer(device), ByteBudget(64 << 20))
    turn = threading.Event()

    def after_the_next_is_there(pipeline: Any, request: QueueRequest) -> Image.Image:
        while [view.state for view in shelf.snapshot().adapters] != ["ready", "ready"]:
            turn.wait(0.001)
        return Generator()(pipeline, request)

    worker = LoRAWorker(LoRAWorkerConfig(lora_directories=library), shelf=shelf)
    worker.discover()
    with torch.cuda.stream(device._streams[0]):
        # The first job's weights are asked for long before its adapter is there.
        torch.cuda._sleep(1_000_000_000)
    ahead = Batch(requests, on_gpu, after_the_next_is_there, tmp_path / "ahead", PrefetchSettings(device_tier=True))
    report = run_batch(worker, ahead, "prefetch")
    worker.close()
    assert [[lora.device_outcome for lora in request.loras] for request in report.requests][1:] == [["hit", "hit"]]
    comparison = compare_images(stock.images, ahead.images, {request.image for request in stock.requests})
    assert (comparison.identical, comparison.compared) == (True, 2)
    assert len({path.read_bytes() for path in ahead.images.iterdir()}) == 2
