"""LoRAWorker with adapters on a real GPU: bit for bit what it is without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from warmstack.worker.config import LoRAWorkerConfig
from warmstack.worker.lora_worker import LoRAWorker

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
