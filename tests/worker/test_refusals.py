"""What cannot be applied: one clear line that names the file and the cure, and the base weights stay."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from warmstack.lora.errors import LoraSyntaxError
from warmstack.worker.errors import StackError
from warmstack.worker.lora_worker import LoRAWorker

MakeWorker = Callable[..., LoRAWorker]
MODULE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def save(path: Path, **tensors: torch.Tensor) -> None:
    save_file({f"{MODULE}.{key.replace('__', '.')}": value for key, value in tensors.items()}, path)


def plain(out_features: int = 64, in_features: int = 64) -> dict[str, torch.Tensor]:
    return {"lora_up__weight": torch.ones(out_features, 2), "lora_down__weight": torch.ones(2, in_features)}


def refusal(worker: LoRAWorker, pipeline: Any, name: str) -> str:
    before = pipeline.unet.state_dict()
    copies = {key: value.clone() for key, value in before.items()}
    with pytest.raises(StackError) as caught:
        worker.apply_to_pipeline(pipeline, [name])
    assert all(torch.equal(value, copies[key]) for key, value in pipeline.unet.state_dict().items())
    assert "\n" not in str(caught.value)
    assert str(Path(worker.config.lora_directories[0])) not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("DoRA", {"dora_scale": torch.ones(64, 1)}),
        ("LoHa", {"hada_w1_a": torch.ones(64, 2), "hada_w1_b": torch.ones(2, 64)}),
        ("LoKr", {"lokr_w1": torch.ones(8, 8), "lokr_w2": torch.ones(8, 8)}),
        ("full-difference", {"diff": torch.ones(64, 64)}),
        ("OFT", {"oft_blocks": torch.ones(4, 16, 16)}),
    ],
)
def test_formats_that_are_not_plain_lora_are_refused_by_name(
    kind: str, extra: dict[str, torch.Tensor], pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    save(tmp_path / "odd.safetensors", **plain(), **extra)
    text = refusal(make_worker(lora_directories=tmp_path), pipeline, "odd")
    assert "'odd.safetensors'" in text
    assert kind in text


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"alpha_pattern": {"*to_q": 1}}, r"'\*to_q'"),
        ({"lora_alpha": float("nan")}, "nan"),
        ({"alpha_pattern": {"to_q": float("inf")}}, "inf"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    config: dict[str, object], told: str, pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    place = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{place}.lora_A.weight": torch.ones(2, 64), f"{place}.lora_B.weight": torch.ones(64, 2)}
    header = json.dumps({f"unet.{key}": value for key, value in config.items()})
    save_file(tensors, tmp_path / "odd.safetensors", {"lora_adapter_metadata": header})
    text = refusal(make_worker(lora_directories=tmp_path), pipeline, "odd")
    assert "'odd.safetensors'" in text
    assert re.search(told, text)


def test_shapes_of_another_model_are_refused(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    save(tmp_path / "wide.safetensors", **plain(1280, 1280))
    text = refusal(make_worker(lora_directories=tmp_path), pipeline, "wide")
    assert "'wide.safetensors'" in text
    assert "another model" in text
    assert "1280x1280" in text


def test_modules_of_another_model_are_refused(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    factors = {"lora_A.weight": torch.ones(2, 8), "lora_B.weight": torch.ones(8, 2)}
    save_file({f"transformer.blocks.0.attn.to_q.{k}": v for k, v in factors.items()}, tmp_path / "flux.safetensors")
    text = refusal(make_worker(lora_directories=tmp_path), pipeline, "flux")
    assert "another model" in text


def test_keys_that_nothing_converts_are_refused(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    save(tmp_path / "half.safetensors", lora_down__weight=torch.ones(2, 64))
    text = refusal(make_worker(lora_directories=tmp_path), pipeline, "half")
    assert "'half.safetensors'" in text


def test_parts_that_do_not_match_are_told_with_the_share_that_does(
    pipeline: Any, library: Path, tmp_path: Path, make_worker: MakeWorker
) -> None:
    tensors = load_file(library / "styles/wash.safetensors")
    extra = {
        "unet.no_such.module.lora_A.weight": torch.ones(2, 8),
        "unet.no_such.module.lora_B.weight": torch.ones(8, 2),
    }
    save_file({**tensors, **extra}, tmp_path / "partly.safetensors")
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "partly").loras
    assert lora.unmatched == ("unet.no_such.module",)
    assert 0 < lora.matched_share < 1
    assert "unet.no_such.module" in lora.notes[0]


def test_every_problem_of_a_stack_is_told_at_once(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    save(tmp_path / "wide.safetensors", **plain(1280, 1280))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "wide.safetensors").read_bytes()[:-100])
    with pytest.raises(StackError) as caught:
        make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, ["wide", "cut", "widest"])
    texts = list(map(str, caught.value.problems))
    assert len(texts) == 3
    assert "another model" in texts[0]
    assert "'cut.safetensors'" in texts[1]
    assert "not found" in texts[2]
    assert "wide.safetensors" in texts[2]


def test_an_ambiguous_name_is_refused_unless_its_category_decides(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker()
    with pytest.raises(StackError, match=r"details/soft\.safetensors.*styles/soft\.safetensors"):
        worker.apply_to_pipeline(pipeline, ["soft"])
    (lora,) = worker.apply_to_pipeline(pipeline, [{"name": "soft", "category": "details"}]).loras
    assert lora.name == "details/soft.safetensors"


def test_a_failed_stack_takes_the_one_before_off(pipeline: Any, make_worker: MakeWorker) -> None:
    """A picture with yesterday's LoRA would be worse than none."""
    worker = make_worker()
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    worker.apply_to_pipeline(pipeline, ["ink"])
    with pytest.raises(StackError):
        worker.apply_to_pipeline(pipeline, ["no such"])
    assert all(torch.equal(value, before[key]) for key, value in pipeline.unet.state_dict().items())


@pytest.mark.parametrize("wrong", [5, [5], [("ink", "much")], {"lora": "ink"}, "{broken"])
def test_what_is_no_stack_is_a_syntax_error(wrong: Any, pipeline: Any, make_worker: MakeWorker) -> None:
    with pytest.raises(LoraSyntaxError):
        make_worker().apply_to_pipeline(pipeline, wrong)


def test_strengths_must_be_one_for_each(pipeline: Any, make_worker: MakeWorker) -> None:
    with pytest.raises(LoraSyntaxError, match="2 strengths for 1"):
        make_worker().apply_to_pipeline(pipeline, ["ink"], [1.0, 2.0])
