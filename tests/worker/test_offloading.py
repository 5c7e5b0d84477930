"""Weights that are elsewhere are refused: writing would change nothing, and the picture would lack its LoRA."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from diffusers.hooks import HookRegistry, apply_group_offloading, group_offloading
from safetensors.torch import save_file

from warmstack.lora.errors import LoraError
from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import FluxLike, kohya_pair

PATH = "single_transformer_blocks.0.proj_out"


@pytest.fixture
def pipeline() -> Any:
    return FluxLike(transformer=[PATH])


@pytest.fixture
def worker(tmp_path: Path, make_worker: Callable[..., LoRAWorker]) -> LoRAWorker:
    save_file(kohya_pair("lora_unet_single_blocks_0_linear2", 1), tmp_path / "it.safetensors")
    return make_worker(lora_directories=tmp_path)


def weight(pipeline: Any) -> torch.Tensor:
    found: torch.Tensor = pipeline.transformer.get_submodule(PATH).weight
    return found.detach().clone()


def test_a_model_offloaded_layer_by_layer_is_refused_with_the_cure(pipeline: Any, worker: LoRAWorker) -> None:
    base = weight(pipeline)
    cpu_offload(pipeline.transformer, "cpu")
    with pytest.raises(LoraError, match=r"transformer.*enable_model_cpu_offload"):
        worker.apply_to_pipeline(pipeline, "it")
    assert worker.status().base_copy_bytes == 0
    remove_hook_from_module(pipeline.transformer, recurse=True)
    assert torch.equal(weight(pipeline), base)
    assert worker.apply_to_pipeline(pipeline, "it").weights_updated == 1
    assert not torch.equal(weight(pipeline), base)


@pytest.mark.parametrize("take_off", ["remove_from_pipeline", "forget"])
def test_a_stack_that_was_applied_before_comes_off_once_the_weights_are_back(
    take_off: str, pipeline: Any, worker: LoRAWorker
) -> None:
    base = weight(pipeline)
    worker.apply_to_pipeline(pipeline, "it")
    cpu_offload(pipeline.transformer, "cpu")
    for call in (lambda: getattr(worker, take_off)(pipeline), lambda: worker.apply_to_pipeline(pipeline, [])):
        with pytest.raises(LoraError, match="enable_model_cpu_offload"):
            call()
    remove_hook_from_module(pipeline.transformer, recurse=True)
    getattr(worker, take_off)(pipeline)
    assert torch.equal(weight(pipeline), base)


def offload_to_disk(pipeline: Any, folder: Path, kind: str = "leaf_level") -> None:
    """From now on the memory of the weights holds anything at all outside the forward pass."""
    cpu = torch.device("cpu")
    apply_group_offloading(
        pipeline.transformer, cpu, offload_type=kind, num_blocks_per_group=1, offload_to_disk_path=str(folder)
    )


@pytest.mark.parametrize("kind", ["leaf_level", "block_level"])
def test_a_model_whose_groups_lie_on_disk_is_refused_with_the_cure(
    kind: str, pipeline: Any, worker: LoRAWorker, tmp_path: Path
) -> None:
    offload_to_disk(pipeline, tmp_path / "groups", kind)
    for _ in range(2):
        with pytest.raises(LoraError, match=r"transformer.*disk.*enable_model_cpu_offload"):
            worker.apply_to_pipeline(pipeline, "it")
    assert worker.status().base_copy_bytes == 0
    assert worker.apply_to_pipeline(pipeline, []).loras == ()


@pytest.mark.parametrize("take_off", ["remove_from_pipeline", "forget"])
def test_a_stack_that_went_to_disk_with_its_model_is_told(
    take_off: str, pipeline: Any, worker: LoRAWorker, tmp_path: Path
) -> None:
    base = weight(pipeline)
    worker.apply_to_pipeline(pipeline, "it")
    offload_to_disk(pipeline, tmp_path / "groups")
    for call in (lambda: getattr(worker, take_off)(pipeline), lambda: worker.apply_to_pipeline(pipeline, [])):
        with pytest.raises(LoraError, match="enable_model_cpu_offload"):
            call()
    HookRegistry.check_if_exists_or_initialize(pipeline.transformer).remove_hook("group_offloading", recurse=True)
    getattr(worker, take_off)(pipeline)
    assert torch.equal(weight(pipeline), base)


class _Stream:
    """One that is done at once."""

    def synchronize(self) -> None:
        pass


class _Backend:
    Stream = _Stream

    def __init__(self, *_: object) -> None:
        pass

    def stream(self, _: object) -> Any:
        return nullcontext()

    def current_stream(self) -> _Stream:
        return _Stream()


def test_a_pass_that_broke_off_leaves_no_stack_in_the_originals_of_streamed_groups(
    pipeline: Any, worker: LoRAWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_the_device(_group: object, tensor: torch.Tensor, source: torch.Tensor, _stream: object) -> None:
        tensor.data = source.clone()

    base = weight(pipeline)
    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", _Backend)
    monkeypatch.setattr(group_offloading.ModuleGroup, "_transfer_tensor_to_device", to_the_device)
    monkeypatch.setattr(group_offloading, "send_to_device", lambda inputs, *_, **__: inputs)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "Stream", _Stream)
        apply_group_offloading(pipeline.transformer, torch.device("cuda"), offload_type="leaf_level", use_stream=True)
    layer, sample = pipeline.transformer.get_submodule(PATH), torch.ones(1, 8)
    before = layer(sample)
    worker.apply_to_pipeline(pipeline, "it")
    changed = layer(sample)
    assert not torch.allclose(changed, before)
    with pytest.raises(RuntimeError):
        layer(torch.ones(1, 9))
    worker.apply_to_pipeline(pipeline, [])
    assert torch.equal(layer(sample), before)
    worker.apply_to_pipeline(pipeline, "it")
    assert torch.equal(layer(sample), changed)
    worker.remove_from_pipeline(pipeline)
    assert torch.equal(layer(sample), before)
    assert torch.equal(weight(pipeline), base)


def test_groups_that_wait_in_memory_take_a_stack(pipeline: Any, worker: LoRAWorker) -> None:
    apply_group_offloading(pipeline.transformer, torch.device("cpu"), offload_type="leaf_level")
    layer, sample = pipeline.transformer.get_submodule(PATH), torch.ones(1, 8)
    before = layer(sample)
    worker.apply_to_pipeline(pipeline, "it")
    assert not torch.allclose(layer(sample), before)
    worker.remove_from_pipeline(pipeline)
    assert torch.equal(layer(sample), before)
