"""`fuse_qkv_projections`: a model then reads copies of its weights, which have to go with them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from warmstack.worker.lora_worker import LoRAWorker

from .conftest import Weights, changed
from .test_two_denoisers import film, save_as_trained, wan

MakeWorker = Callable[..., LoRAWorker]


def weights_of(unet: Any) -> Weights:
    """The copies too, where there are any."""
    return {key: value.detach().clone() for key, value in unet.state_dict().items()}


def test_the_copies_go_with_the_weights(
    pipeline: Any, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, unet = make_worker(), copy.deepcopy(pipeline.unet)
    monkeypatch.setattr(pipeline, "unet", unet)
    worker.apply_to_pipeline(pipeline, "ink")
    unet.fuse_qkv_projections()
    ink = weights_of(unet)
    assert any("to_qkv" in key for key in ink) and any("to_kv" in key for key in ink)
    worker.remove_from_pipeline(pipeline)
    own = weights_of(unet)
    unet.unfuse_qkv_projections()
    unet.fuse_qkv_projections()
    assert changed(own, weights_of(unet)) == set()
    worker.apply_to_pipeline(pipeline, "ink")
    assert changed(ink, weights_of(unet)) == set()
    worker.apply_to_pipeline(pipeline, [])
    assert changed(own, weights_of(unet)) == set()


def test_the_film_of_a_fused_model_is_the_same(tmp_path: Path, make_worker: MakeWorker) -> None:
    pipeline = wan()
    save_as_trained(pipeline.transformer, tmp_path / "it.safetensors", 2)
    worker = make_worker(lora_directories=tmp_path)
    own = film(pipeline)
    worker.apply_to_pipeline(pipeline, "it")
    expected = film(pipeline)
    worker.remove_from_pipeline(pipeline)
    pipeline.transformer.fuse_qkv_projections()
    worker.apply_to_pipeline(pipeline, "it")
    torch.testing.assert_close(film(pipeline), expected)
    assert not torch.allclose(expected, own)


def test_the_copies_of_a_weight_that_two_attentions_share_both_go_with_it(
    tmp_path: Path, make_worker: MakeWorker
) -> None:
    pipeline = wan()
    transformer = pipeline.transformer
    save_as_trained(transformer, tmp_path / "it.safetensors", 2)
    attentions = [block.attn1 for block in transformer.blocks]
    attentions[1].to_k.weight = attentions[0].to_k.weight
    transformer.fuse_qkv_projections()
    own = weights_of(transformer)
    worker = make_worker(lora_directories=tmp_path)
    worker.apply_to_pipeline(pipeline, "it")
    assert "blocks.1.attn1.to_k.weight" in changed(own, weights_of(transformer))
    for attention in attentions:
        parts = (attention.to_q, attention.to_k, attention.to_v)
        assert torch.equal(attention.to_qkv.weight, torch.cat([part.weight for part in parts]))
    worker.remove_from_pipeline(pipeline)
    assert changed(own, weights_of(transformer)) == set()
