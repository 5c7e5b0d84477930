"""Modules that others wrap for a while: the weight belongs to the module inside, which outlives its wrapper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch.nn.utils.parametrizations import weight_norm

from warmstack.worker import QuantisedError
from warmstack.worker.errors import StackError
from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import FluxLike, delta, kohya_pair

PATH = "single_transformer_blocks.0.proj_out"
MODULE = "lora_unet_single_blocks_0_linear2"
TENSORS = kohya_pair(MODULE, 1)


@pytest.fixture
def pipeline() -> Any:
    return FluxLike(transformer=[PATH])


@pytest.fixture
def base(pipeline: Any) -> torch.Tensor:
    return weight(pipeline)


@pytest.fixture
def worker(tmp_path: Path, make_worker: Callable[..., LoRAWorker]) -> LoRAWorker:
    save_file(TENSORS, tmp_path / "it.safetensors")
    return make_worker(lora_directories=tmp_path)


def weight(pipeline: Any) -> torch.Tensor:
    found: torch.Tensor = pipeline.transformer.get_submodule(PATH).weight
    return found.detach().clone()


def replace(pipeline: Any, wrapped: Callable[[Any], Any]) -> None:
    parent, _, name = PATH.rpartition(".")
    setattr(pipeline.transformer.get_submodule(parent), name, wrapped(pipeline.transformer.get_submodule(PATH)))


def load_another(pipeline: Any) -> None:
    """What `load_lora_weights` does to the model."""
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["proj_out"]), pipeline.transformer)


def unload_it(pipeline: Any) -> None:
    recurse_remove_peft_layers(pipeline.transformer)


def load_twice(pipeline: Any) -> None:
    load_another(pipeline)
    replace(pipeline, lambda module: torch.compile(module, backend="eager"))


def unload_twice(pipeline: Any) -> None:
    replace(pipeline, lambda module: module._orig_mod)
    unload_it(pipeline)


def assert_applied_once(pipeline: Any, base: torch.Tensor) -> None:
    torch.testing.assert_close(weight(pipeline) - base, delta(TENSORS, MODULE), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrap", "unwrap"), [(load_another, unload_it), (load_twice, unload_twice)], ids=["peft", "compiled peft"]
)
@pytest.mark.parametrize("apply_first", [False, True])
def test_a_stack_outlives_the_wrapper_that_it_was_applied_through(
    apply_first: bool,
    wrap: Callable[[Any], None],
    unwrap: Callable[[Any], None],
    pipeline: Any,
    base: torch.Tensor,
    worker: LoRAWorker,
) -> None:
    if apply_first:
        worker.apply_to_pipeline(pipeline, "it")
    wrap(pipeline)
    assert worker.apply_to_pipeline(pipeline, "it").weights_updated == 1
    unwrap(pipeline)
    assert_applied_once(pipeline, base)
    worker.remove_from_pipeline(pipeline)
    assert torch.equal(weight(pipeline), base)
    worker.apply_to_pipeline(pipeline, "it")
    assert_applied_once(pipeline, base)


def test_a_wrapped_weight_is_kept_once(pipeline: Any, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pipeline, "it")
    load_another(pipeline)
    worker.apply_to_pipeline(pipeline, "it")
    assert worker.status().base_copy_bytes == weight(pipeline).nbytes
    worker.forget(pipeline)
    assert worker.status().base_copy_bytes == 0


def test_a_weight_that_is_computed_from_others_is_refused_with_the_cure(pipeline: Any, worker: LoRAWorker) -> None:
    """What would be written there is gone before the next pass."""
    replace(pipeline, weight_norm)
    with pytest.raises(
        StackError, match=r"'it\.safetensors'.*transformer is .*parametrized.*pipeline\.load_lora_weights"
    ):
        worker.apply_to_pipeline(pipeline, "it")


def test_a_stack_on_a_weight_that_is_computed_from_others_now_is_told(pipeline: Any, worker: LoRAWorker) -> None:
    worker.apply_to_pipeline(pipeline, "it")
    replace(pipeline, weight_norm)
    with pytest.raises(QuantisedError, match=r"transformer was .*parametrized"):
        worker.remove_from_pipeline(pipeline)
