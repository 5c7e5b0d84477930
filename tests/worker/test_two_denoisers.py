"""Wan 2.2: two transformers, LoRAs in pairs, and rows that say which they are for. diffusers is the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import save_file

from warmstack.worker import StackError
from warmstack.worker.lora_worker import LoRAWorker
from warmstack.worker.request import QueueRequest, parse_queue

from .conftest import Weights, changed
from .other_pipelines import FEATURES, WanLike, kohya_pair
from .test_apply import assert_same_update

MakeWorker = Callable[..., LoRAWorker]
Tensors = dict[str, torch.Tensor]
TRANSFORMERS = ("transformer", "transformer_2")
BLOCK = "blocks.0.ffn.net.0.proj"
BOTH = {"transformer": [BLOCK], "transformer_2": [BLOCK]}
FILE_BLOCK = "diffusion_model.blocks.0.ffn.0"
LOW = {"name": "low", "target": "transformer_2"}
TEXT_DIM = 32


def model(kind: type[WanPipeline | WanImageToVideoPipeline], seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    of_kind = {"image_dim": 4, "added_kv_proj_dim": 24} if kind is WanImageToVideoPipeline else {}
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **of_kind,
    ).eval()


def wan(kind: type[WanPipeline | WanImageToVideoPipeline] = WanPipeline) -> Any:
    """Whole but for its text encoder, in place of which it is given embeddings."""
    pipeline = kind(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        transformer=model(kind, 0),
        transformer_2=model(kind, 1),
        boundary_ratio=0.875,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def film(pipeline: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    words = torch.randn(1, 5, TEXT_DIM, generator=generator)
    size = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 4}
    made = pipeline(
        prompt_embeds=words, guidance_scale=1.0, generator=generator.manual_seed(0), output_type="latent", **size
    )
    latents: torch.Tensor = made.frames
    return latents


def weights_of(pipeline: Any) -> Weights:
    return {
        f"{component}.{key}": value.detach().clone()
        for component in TRANSFORMERS
        for key, value in getattr(pipeline, component).state_dict().items()
    }


def factors(transformer: WanTransformer3DModel, seed: int, names: Mapping[str, str], sides: tuple[str, str]) -> Tensors:
    """Random pairs for the modules `names`, under the names that they stand for."""
    generator = torch.Generator().manual_seed(seed)
    tensors: Tensors = {}
    for path, name in names.items():
        out_features, in_features = transformer.get_submodule(path).weight.shape
        tensors[f"{name}.{sides[0]}.weight"] = torch.randn(4, in_features, generator=generator)
        tensors[f"{name}.{sides[1]}.weight"] = torch.randn(out_features, 4, generator=generator) * 0.1
    return tensors


def wans_own(transformer: WanTransformer3DModel, seed: int) -> Tensors:
    """In the names of Wan's authors, with alphas, which the converter multiplies in."""
    names = {
        "blocks.0.attn1.to_q": "diffusion_model.blocks.0.self_attn.q",
        "blocks.1.attn2.to_v": "diffusion_model.blocks.1.cross_attn.v",
        BLOCK: FILE_BLOCK,
    }
    alphas = {f"{name}.alpha": torch.tensor(2.0) for name in names.values()}
    return factors(transformer, seed, names, ("lora_down", "lora_up")) | alphas


def save_as_trained(transformer: WanTransformer3DModel, path: Path, seed: int) -> None:
    """As a trainer built on diffusers saves the second of a pair: keys and header name the first transformer."""
    names = {path: f"transformer.{path}" for path in ("blocks.0.attn1.to_k", BLOCK, "blocks.1.ffn.net.2")}
    config = {"r": 4, "lora_alpha": 6, "target_modules": list(names)}
    header = json.dumps({f"transformer.{key}": value for key, value in config.items()})
    save_file(factors(transformer, seed, names, ("lora_A", "lora_B")), path, {"lora_adapter_metadata": header})


@pytest.fixture(params=[WanPipeline, WanImageToVideoPipeline])
def pipeline(request: pytest.FixtureRequest) -> Any:
    return wan(request.param)


@pytest.fixture
def worker(tmp_path: Path, make_worker: MakeWorker) -> LoRAWorker:
    """A pair, `high` and `low`."""
    transformer = model(WanPipeline, 0)
    save_file(wans_own(transformer, 1), tmp_path / "high.safetensors")
    save_as_trained(transformer, tmp_path / "low.safetensors", 2)
    return make_worker(lora_directories=tmp_path)


def load_into_both(pipeline: Any, worker: LoRAWorker, strengths: tuple[float, float]) -> None:
    """The same pair by diffusers."""
    for name, options in (("high", {}), ("low", {"load_into_transformer_2": True})):
        path = Path(worker.catalog.find(name).path)
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, **options)
    pipeline.set_adapters(["high", "low"], list(strengths))


def test_a_pair_is_applied_as_diffusers_applies_it(pipeline: Any, worker: LoRAWorker) -> None:
    base = weights_of(pipeline)
    applied = worker.apply_to_pipeline(pipeline, [("high", 0.7), {**LOW, "weight": -0.4}])
    ours = weights_of(pipeline)
    worker.remove_from_pipeline(pipeline)
    assert changed(base, weights_of(pipeline)) == set()
    load_into_both(pipeline, worker, (0.7, -0.4))
    for component, adapter in zip(TRANSFORMERS, ("high", "low"), strict=True):
        pipeline.fuse_lora(components=[component], adapter_names=[adapter])
    pipeline.unload_lora_weights()
    assert_same_update(base, ours, weights_of(pipeline))
    assert [lora.components for lora in applied.loras] == [("transformer",), ("transformer_2",)]
    assert [lora.notes for lora in applied.loras] == [(), ()]


def test_the_film_is_that_of_diffusers_adapters(worker: LoRAWorker) -> None:
    pipeline = wan()
    own = film(pipeline)
    worker.apply_to_pipeline(pipeline, ["high", LOW])
    ours = film(pipeline)
    worker.remove_from_pipeline(pipeline)
    assert torch.equal(film(pipeline), own)
    load_into_both(pipeline, worker, (1.0, 1.0))
    theirs = film(pipeline)
    assert (theirs - own).norm() > 1e-2 * own.norm(), "or nothing was compared"
    assert (ours - theirs).norm() <= 1e-5 * (theirs - own).norm()


def test_one_file_may_be_for_both_at_strengths_of_their_own(worker: LoRAWorker) -> None:
    pipeline = wan()
    worker.apply_to_pipeline(pipeline, [("high", 0.5)])
    first = weights_of(pipeline)
    pipeline.transformer, pipeline.transformer_2 = pipeline.transformer_2, pipeline.transformer
    worker.apply_to_pipeline(pipeline, [("high", -0.2)])
    pipeline.transformer, pipeline.transformer_2 = pipeline.transformer_2, pipeline.transformer
    expected = {key: value for key, value in first.items() if key.startswith("transformer.")} | {
        key: value for key, value in weights_of(pipeline).items() if key.startswith("transformer_2.")
    }
    both = [{"name": "high", "weight": -0.2, "target": "transformer_2"}, {"name": "high", "weight": 0.5}]
    for _ in range(2):
        worker.apply_to_pipeline(pipeline, both)
        assert changed(expected, weights_of(pipeline)) == set()
    assert worker.status().misses == 1, "read once"


def test_a_line_of_a_queue_says_it_as_a_row_does(worker: LoRAWorker) -> None:
    pipeline = wan()
    worker.apply_to_pipeline(pipeline, [{**LOW, "weight": 0.5}])
    expected = weights_of(pipeline)
    lora = {"global_weight": 0.5, "models": ["high", LOW]}
    (request,) = parse_queue([json.dumps({"prompt": "a fox", "lora": lora})])
    assert isinstance(request, QueueRequest)
    assert [row.target for row in request.stack] == ["", "transformer_2"]
    worker.apply_to_pipeline(pipeline, request.stack.rows[1:])
    assert changed(expected, weights_of(pipeline)) == set()


@pytest.mark.parametrize(
    ("components", "target", "said"),
    [
        (
            {"transformer": [BLOCK], "transformer_2": None},
            "transformer_2",
            "is without; leave 'target' out",
        ),
        ({"transformer": [BLOCK]}, "transformer_2", "is without; leave 'target' out"),
        (BOTH, "low_noise", "choose transformer or transformer_2"),
        (BOTH, "text_encoder", "choose transformer or transformer_2"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_the_cure(
    components: dict[str, Any], target: str, said: str, tmp_path: Path, make_worker: MakeWorker
) -> None:
    save_file(kohya_pair(FILE_BLOCK, 1), tmp_path / "it.safetensors")
    worker, pipeline = make_worker(lora_directories=tmp_path), WanLike(**components)
    with pytest.raises(StackError) as refused:
        worker.apply_to_pipeline(pipeline, [{"name": "it", "target": target}])  # type: ignore[arg-type]
    assert f"'it.safetensors' is meant for '{target}'" in str(refused.value)
    assert said in str(refused.value)
    assert worker.status().base_copy_bytes == 0


def named(tmp_path: Path, *components: str) -> None:
    sides = {"lora_A": (4, FEATURES), "lora_B": (FEATURES, 4)}
    tensors = {
        f"{part}.{BLOCK}.{side}.weight": torch.rand(shape) for part in components for side, shape in sides.items()
    }
    save_file(tensors, tmp_path / "it.safetensors")


def two() -> Any:
    return WanLike(**BOTH)


@pytest.mark.parametrize("components", [("transformer_2",), TRANSFORMERS], ids="+".join)
def test_keys_that_name_a_transformer_reach_it(
    components: tuple[str, ...], tmp_path: Path, make_worker: MakeWorker
) -> None:
    named(tmp_path, *components)
    pipeline = two()
    before = weights_of(pipeline)
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "it").loras
    assert lora.notes == ()
    assert lora.as_json()["components"] == list(components)
    assert changed(before, weights_of(pipeline)) == {f"{component}.{BLOCK}.weight" for component in components}


@pytest.mark.parametrize("target", TRANSFORMERS)
@pytest.mark.parametrize("component", TRANSFORMERS)
def test_a_target_counts_more_than_the_one_that_keys_name(
    component: str, target: str, tmp_path: Path, make_worker: MakeWorker
) -> None:
    named(tmp_path, component)
    pipeline = two()
    before = weights_of(pipeline)
    row = {"name": "it", "target": target}
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, [row]).loras
    assert (lora.components, lora.notes) == ((target,), ())
    assert changed(before, weights_of(pipeline)) == {f"{target}.{BLOCK}.weight"}


@pytest.mark.parametrize("present", TRANSFORMERS)
def test_a_file_for_the_transformer_that_is_not_loaded_is_refused_with_the_cure(
    present: str, tmp_path: Path, make_worker: MakeWorker
) -> None:
    (absent,) = set(TRANSFORMERS) - {present}
    named(tmp_path, absent)
    pipeline: Any = WanLike(**{present: [BLOCK], absent: None})
    worker = make_worker(lora_directories=tmp_path)
    with pytest.raises(StackError, match=f'names the {absent}, .* "target": "{present}"'):
        worker.apply_to_pipeline(pipeline, "it")
    (lora,) = worker.apply_to_pipeline(pipeline, [{"name": "it", "target": present}]).loras
    assert lora.components == (present,)


def test_a_file_that_names_both_takes_no_target(tmp_path: Path, make_worker: MakeWorker) -> None:
    named(tmp_path, *TRANSFORMERS)
    with pytest.raises(StackError, match=r"name transformer and transformer_2; leave 'target' out"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(two(), [{"name": "it", "target": "transformer_2"}])


def test_a_second_transformer_that_gets_nothing_is_told(tmp_path: Path, make_worker: MakeWorker) -> None:
    save_file(kohya_pair(FILE_BLOCK, 1), tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    (lora,) = worker.apply_to_pipeline(two(), "it").loras
    (note,) = lora.notes
    assert "'it.safetensors' changes transformer alone" in note
    assert '"target": "transformer_2"' in note
    assert lora.as_json()["left_out"] == ["transformer_2"]
    silent: list[tuple[Any, Any]] = [
        (WanLike(transformer=[BLOCK], transformer_2=None), "it"),
        (two(), [{"name": "it", "target": "transformer"}]),
        (two(), ["it", {"name": "it", "target": "transformer_2"}]),
        (two(), [("it", 0.0, 1.0)]),
    ]
    for pipeline, stack in silent:
        assert [note for lora in worker.apply_to_pipeline(pipeline, stack).loras for note in lora.notes] == []


def test_a_model_that_is_both_transformers_takes_the_sum(worker: LoRAWorker) -> None:
    pipeline = wan()
    pipeline.transformer_2 = pipeline.transformer
    base = weights_of(pipeline)
    worker.apply_to_pipeline(pipeline, ["high", "low"])
    expected = weights_of(pipeline)
    for _ in range(2):
        worker.apply_to_pipeline(pipeline, ["high", LOW])
        assert changed(expected, weights_of(pipeline)) == set()
    worker.remove_from_pipeline(pipeline)
    assert changed(base, weights_of(pipeline)) == set()
