"""Converters that compute: alpha counts once, and what is in memory stays what is in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.worker.errors import StackError
from warmstack.worker.lora_worker import LoRAWorker

from .other_pipelines import (
    FluxLike,
    OtherFluxLike,
    OtherPipeline,
    StableDiffusionXLLike,
    WanLike,
    delta,
    kohya_pair,
    pair,
)

MakeWorker = Callable[..., LoRAWorker]
Tensors = dict[str, torch.Tensor]
Homes = Mapping[str, tuple[str, str]]
"""Modules of a file -> component and path of the weight."""

CLIP = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
CLIP_HOME = "text_model.encoder.layers.0.mlp.fc1"
FLUX_OUT = "lora_unet_single_blocks_0_linear2"
FLUX_OUT_HOME = "single_transformer_blocks.0.proj_out"
FLUX_HOMES: Homes = {CLIP: ("text_encoder", CLIP_HOME), FLUX_OUT: ("transformer", FLUX_OUT_HOME)}
WAN_HOMES: Homes = {
    "diffusion_model.blocks.0.self_attn.q": ("transformer", "blocks.0.attn1.to_q"),
    "diffusion_model.blocks.0.cross_attn.k": ("transformer", "blocks.0.attn2.to_k"),
    "diffusion_model.blocks.0.ffn.0": ("transformer", "blocks.0.ffn.net.0.proj"),
}


def flux_file(alpha: float) -> Tensors:
    return {**kohya_pair(CLIP, 1, alpha=alpha), **kohya_pair(FLUX_OUT, 2, alpha=alpha)}


def wan_file(alpha: float) -> Tensors:
    pairs = [kohya_pair(module, seed, alpha=alpha) for seed, module in enumerate(WAN_HOMES)]
    return {key: value for tensors in pairs for key, value in tensors.items()}


def flux(kind: type[FluxLike] = FluxLike) -> Any:
    return kind(transformer=[FLUX_OUT_HOME], text_encoder=[CLIP_HOME])


def wan() -> Any:
    return WanLike(transformer=[path for _, path in WAN_HOMES.values()])


def updates(worker: LoRAWorker, pipeline: OtherPipeline, homes: Homes) -> Tensors:
    """What one application adds to each weight, by the module of the file."""
    weights: dict[str, Any] = {
        module: getattr(pipeline, component).get_submodule(path).weight for module, (component, path) in homes.items()
    }
    before = {module: weight.detach().clone() for module, weight in weights.items()}
    (lora,) = worker.apply_to_pipeline(pipeline, "it").loras  # type: ignore[arg-type]
    assert (lora.unmatched, lora.matched_share) == ((), 1.0)
    after = {module: weight.detach() - before[module] for module, weight in weights.items()}
    worker.remove_from_pipeline(pipeline)  # type: ignore[arg-type]
    return after


@pytest.mark.parametrize("alpha", [1.0, 4.0, 16.0, 0.0, -1.0, -16.0], ids="alpha {}".format)
@pytest.mark.parametrize(
    ("tensors_of", "pipelines", "homes"),
    [
        (flux_file, lambda: [flux(), flux(), flux(OtherFluxLike)], FLUX_HOMES),
        (wan_file, lambda: [wan(), wan()], WAN_HOMES),
    ],
    ids=["flux", "wan"],
)
def test_alpha_counts_once_however_often_the_file_is_converted(
    tensors_of: Callable[[float], Tensors],
    pipelines: Callable[[], list[Any]],
    homes: Homes,
    alpha: float,
    tmp_path: Path,
    make_worker: MakeWorker,
) -> None:
    """The converters scale some factors in place; rank is 4."""
    tensors = tensors_of(alpha)
    save_file(tensors, tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    for pipeline in pipelines():
        for module, update in updates(worker, pipeline, homes).items():
            torch.testing.assert_close(update, delta(tensors, module), rtol=1e-5, atol=1e-5)
    with worker.cache.acquire(worker.catalog.find("it")) as lease:
        assert lease.outcome == "hit"
        assert all(torch.equal(lease.adapter.tensors[key], value) for key, value in tensors.items())


class Writes(OtherPipeline):
    """A converter that writes in every way there is, into factors without an alpha too."""

    _lora_loadable_modules = ("transformer",)

    @classmethod
    def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
        state["transformer.a.lora_A.weight"] *= 2
        state["transformer.b.lora_A.weight"][0].add_(1)
        state["transformer.b.lora_B.weight"].data[:, 1] = 0
        torch.mul(state["transformer.a.lora_B.weight"], 3, out=state["transformer.a.lora_B.weight"])
        return state


def test_no_converter_writes_into_the_adapter(tmp_path: Path, make_worker: MakeWorker) -> None:
    factors = {"a.lora_A": (2, 8), "a.lora_B": (8, 2), "b.lora_A": (2, 8), "b.lora_B": (8, 2)}
    tensors = {f"transformer.{name}.weight": torch.rand(shape) for name, shape in factors.items()}
    save_file(tensors, tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    found = updates(worker, Writes(transformer=["a", "b"]), {"a": ("transformer", "a"), "b": ("transformer", "b")})
    with worker.cache.acquire(worker.catalog.find("it")) as lease:
        assert all(torch.equal(lease.adapter.tensors[key], value) for key, value in tensors.items())
    expected = Writes.lora_state_dict({key: value.clone() for key, value in tensors.items()})
    for module, update in found.items():
        up, down = (expected[f"transformer.{module}.{side}.weight"] for side in ("lora_B", "lora_A"))
        torch.testing.assert_close(update, up @ down, rtol=1e-5, atol=1e-5)


class Counting(OtherPipeline):
    """Renames nothing, and counts its conversions."""

    _lora_loadable_modules = ("transformer",)
    conversions = 0

    @classmethod
    def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
        cls.conversions += 1
        return state


class Computing(Counting):
    conversions = 0

    @classmethod
    def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
        return {key: value * 1 for key, value in super().lora_state_dict(state, **options).items()}


@pytest.mark.parametrize(
    ("kind", "room_bytes", "conversions", "kept_bytes"),
    [(Counting, 0, 1, 0), (Computing, 0, 3, 0), (Computing, 127, 3, 0), (Computing, 128, 1, 128)],
)
def test_only_what_the_budget_counts_is_kept(
    kind: type[Counting], room_bytes: int, conversions: int, kept_bytes: int, tmp_path: Path, make_worker: MakeWorker
) -> None:
    """Factors that a converter computed double an adapter's memory."""
    tensors = {"transformer.a.lora_A.weight": torch.rand(2, 8), "transformer.a.lora_B.weight": torch.rand(8, 2)}
    save_file(tensors, tmp_path / "it.safetensors")
    fresh = type("Fresh", (kind,), {"conversions": 0})
    worker, pipeline = make_worker(lora_directories=tmp_path), fresh(transformer=["a"])
    file = worker.catalog.find("it")
    with worker.cache.acquire(file):
        adapter_bytes = worker.status().resident_bytes
    worker.cache.resize(adapter_bytes + room_bytes)
    seen = [updates(worker, pipeline, {"a": ("transformer", "a")})["a"] for _ in range(3)]
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
    assert fresh.conversions == conversions
    assert worker.status().resident_bytes == adapter_bytes + kept_bytes
    assert worker.cache.evict(file.key)
    assert worker.status().resident_bytes == 0


def test_what_no_request_names_goes_for_computed_factors(tmp_path: Path, make_worker: MakeWorker) -> None:
    tensors = {"transformer.a.lora_A.weight": torch.rand(2, 8), "transformer.a.lora_B.weight": torch.rand(8, 2)}
    for name in ("it", "past"):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    fresh = type("Fresh", (Computing,), {"conversions": 0})
    worker, pipeline = make_worker(lora_directories=tmp_path), fresh(transformer=["a"])
    for name in ("past", "it"):
        with worker.cache.acquire(worker.catalog.find(name)):
            pass
    worker.cache.resize(worker.status().resident_bytes)
    for _ in range(3):
        worker.apply_to_pipeline(pipeline, "it")
    assert fresh.conversions == 1
    assert [view.name for view in worker.cache.snapshot().adapters] == ["it.safetensors"]


T5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (T5, T5),
        ("lora_te1_text_model_text_projection", "lora_te1_text_model_text_projection"),
        ("lora_unet_img_in", "x_embedder"),
    ],
)
def test_what_a_converter_drops_or_gives_no_component_is_told_and_counted(
    module: str, told: str, tmp_path: Path, make_worker: MakeWorker
) -> None:
    save_file({**flux_file(1.0), **kohya_pair(module, 3)}, tmp_path / "it.safetensors")
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it").loras
    assert lora.unmatched == (told,)
    assert lora.matched == 2
    assert 0 < lora.matched_share < 1


@pytest.mark.parametrize("broken", [T5, FLUX_OUT])
def test_what_is_infinite_makes_no_share_of_nan(broken: str, tmp_path: Path, make_worker: MakeWorker) -> None:
    file = {**flux_file(1.0), **kohya_pair(T5, 3)}
    file[f"{broken}.lora_up.weight"][0, 0] = torch.inf
    save_file(file, tmp_path / "it.safetensors")
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it").loras
    assert lora.matched_share == pytest.approx((2 / 3) ** 0.5)


def test_parts_without_effect_are_not_told_when_they_are_dropped(tmp_path: Path, make_worker: MakeWorker) -> None:
    nothing = {key: value * 0 if "lora_up" in key else value for key, value in kohya_pair(T5, 3).items()}
    save_file({**flux_file(1.0), **nothing}, tmp_path / "it.safetensors")
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it").loras
    assert (lora.unmatched, lora.matched_share) == ((), 1.0)


@pytest.mark.parametrize("name", ["styles/ink", "styles/wash", "characters/fox", "details/grain"])
def test_files_that_match_lose_nothing(name: str, pipeline: Any, make_worker: MakeWorker) -> None:
    (lora,) = make_worker().apply_to_pipeline(pipeline, name).loras
    assert (lora.unmatched, lora.matched_share) == ((), 1.0)


def test_a_module_that_is_split_is_no_loss(tmp_path: Path, make_worker: MakeWorker) -> None:
    module = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{module}.lora_down.weight": torch.rand(4, 8), f"{module}.lora_up.weight": torch.rand(24, 4)}
    save_file({**tensors, f"{module}.alpha": torch.tensor(2.0)}, tmp_path / "it.safetensors")
    pipeline = FluxLike(transformer=[f"transformer_blocks.0.attn.to_{name}" for name in "qkv"])
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "it").loras  # type: ignore[arg-type]
    assert (lora.matched, lora.unmatched, lora.matched_share) == (3, (), 1.0)


@pytest.mark.parametrize(
    "problem",
    [
        AssertionError("sizes"),
        TypeError("no such argument"),
        UnboundLocalError("cannot access local variable 'down_weight'"),
        ZeroDivisionError("division by zero"),
        re.error("nothing to repeat"),
    ],
)
def test_a_converter_that_gives_up_makes_one_clear_line(
    problem: Exception, tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(state: Tensors, /, **options: Any) -> Tensors:
        raise problem

    save_file(flux_file(1.0), tmp_path / "it.safetensors")
    monkeypatch.setattr(FluxLike, "lora_state_dict", give_up)
    with pytest.raises(StackError, match=r"does not fit FluxLike.*use a LoRA made for this model"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it")


def test_an_alpha_without_its_factors_makes_one_clear_line(tmp_path: Path, make_worker: MakeWorker) -> None:
    lonely = {"diffusion_model.blocks.0.cross_attn.q.alpha": torch.tensor(1.0)}
    save_file({**kohya_pair("diffusion_model.blocks.0.ffn.0", 1, alpha=None), **lonely}, tmp_path / "it.safetensors")
    with pytest.raises(StackError, match=r"'it\.safetensors' does not fit WanLike"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(wan(), "it")


@pytest.mark.parametrize("alpha", [[float("nan")], [float("inf")], [float("-inf")], [1.0, 2.0]], ids=str)
@pytest.mark.parametrize("pipeline", [flux, wan])
def test_an_alpha_that_is_no_number_is_refused(
    alpha: list[float], pipeline: Callable[[], Any], tmp_path: Path, make_worker: MakeWorker
) -> None:
    tensors = flux_file(1.0) if pipeline is flux else wan_file(1.0)
    module = next(key for key in tensors if key.endswith(".alpha"))
    save_file({**tensors, module: torch.tensor(alpha)}, tmp_path / "it.safetensors")
    with pytest.raises(StackError, match=r"'it\.safetensors'.* alpha of .* no number") as caught:
        make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline(), "it")
    assert module.removesuffix(".alpha") in str(caught.value)


def test_a_lora_in_two_spellings_loses_nothing(tmp_path: Path, make_worker: MakeWorker) -> None:
    """Converters take one of them; the other one says the same."""
    tensors = kohya_pair(FLUX_OUT, 2, alpha=None)
    sides = {"lora_A": "lora_down", "lora_B": "lora_up"}
    again = {
        f"transformer.{FLUX_OUT_HOME}.{ours}.weight": tensors[f"{FLUX_OUT}.{theirs}.weight"].clone()
        for ours, theirs in sides.items()
    }
    save_file({**tensors, **again}, tmp_path / "it.safetensors")
    changed = {key: value.clone() for key, value in again.items()}
    for value in changed.values():
        value[-1, -1] += 1
    save_file({**tensors, **changed}, tmp_path / "other.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    pipeline: Any = FluxLike(transformer=[FLUX_OUT_HOME])
    (lora,) = worker.apply_to_pipeline(pipeline, "it").loras
    assert (lora.unmatched, lora.matched_share) == ((), 1.0)
    (lora,) = worker.apply_to_pipeline(pipeline, "other").loras
    assert len(lora.unmatched) == 1 and lora.matched_share < 1


def test_a_lora_of_other_sizes_is_refused_by_the_converter(tmp_path: Path, make_worker: MakeWorker) -> None:
    save_file(kohya_pair("lora_unet_single_blocks_0_linear1", 1), tmp_path / "it.safetensors")
    with pytest.raises(StackError, match=r"'it\.safetensors' does not fit FluxLike"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it")


def test_the_time_to_apply_holds_the_conversion_and_no_load(
    tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0

    class Slow(Counting):
        @classmethod
        def lora_state_dict(cls, state: Tensors, /, **options: Any) -> Tensors:
            nonlocal now_s
            now_s += 5.0
            return state

    tensors = {"transformer.a.lora_A.weight": torch.rand(2, 8), "transformer.a.lora_B.weight": torch.rand(8, 2)}
    save_file(tensors, tmp_path / "it.safetensors")
    worker = make_worker(lora_directories=tmp_path)
    acquire = worker.cache.acquire

    def slow_load(*given: Any, **options: Any) -> Any:
        nonlocal now_s
        now_s += 100.0
        return acquire(*given, **options)

    monkeypatch.setattr(worker.cache, "acquire", slow_load)
    monkeypatch.setattr("warmstack.worker.lora_worker.time", SimpleNamespace(perf_counter=lambda: now_s))
    assert worker.apply_to_pipeline(Slow(transformer=["a"]), "it").apply_s == 5.0


@pytest.mark.parametrize("alpha", [2.0, -2.0])
def test_an_alpha_beside_keys_of_old_diffusers_keeps_its_sign(
    alpha: float, tmp_path: Path, make_worker: MakeWorker
) -> None:
    module = f"text_encoder.{CLIP_HOME}"
    sides = {"down": "lora_linear_layer.down", "up": "lora_linear_layer.up"}
    tensors = pair(module, 1, alpha=alpha, **sides)
    save_file(tensors, tmp_path / "it.safetensors")
    up, down = (tensors[f"{module}.{sides[side]}.weight"] for side in ("up", "down"))
    pipeline = StableDiffusionXLLike(text_encoder=[CLIP_HOME])
    found = updates(make_worker(lora_directories=tmp_path), pipeline, {module: ("text_encoder", CLIP_HOME)})
    torch.testing.assert_close(found[module], alpha / 4 * up @ down, rtol=1e-5, atol=1e-5)


def test_a_negative_alpha_without_the_factor_that_takes_its_sign_is_refused(
    tmp_path: Path, make_worker: MakeWorker
) -> None:
    """And not for ever on its way through a converter."""
    tensors = kohya_pair(FLUX_OUT, 2, alpha=-2.0)
    save_file({key: value for key, value in tensors.items() if "lora_up" not in key}, tmp_path / "it.safetensors")
    with pytest.raises(StackError, match=r"'it\.safetensors'"):
        make_worker(lora_directories=tmp_path).apply_to_pipeline(flux(), "it")
