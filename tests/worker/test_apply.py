"""Applying LoRAs: against diffusers as the oracle, and back to the last bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tiny_loras import save_peft_lora

from warmstack.lora.stacks.stack import LoraRow, LoraStack
from warmstack.worker.lora_worker import LoRAWorker

from .conftest import COMPONENTS, Weights, changed, weights_of

MakeWorker = Callable[..., LoRAWorker]


def fused_by_diffusers(pipeline: Any, files: Sequence[tuple[Path, dict[str, float]]]) -> Weights:
    """The weights that diffusers and peft make of the same files, `unload_lora_weights` included."""
    names = [f"a{index}" for index in range(len(files))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        for name, (path, _) in zip(names, files, strict=True):
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    pipeline.set_adapters(names, [strengths for _, strengths in files])
    pipeline.fuse_lora(components=list(COMPONENTS))
    pipeline.unload_lora_weights()
    return weights_of(pipeline)


def assert_same_update(base: Weights, ours: Weights, theirs: Weights) -> None:
    assert changed(base, ours) == changed(base, theirs) != set()
    for key in changed(base, theirs):
        update = theirs[key] - base[key]
        assert (ours[key] - theirs[key]).norm() <= 1e-6 * update.norm() + 1e-7 * base[key].norm(), key


@pytest.mark.parametrize("names", [["styles/ink"], ["characters/fox"], ["styles/wash"], ["ink", "fox", "wash"]])
def test_weights_are_those_of_diffusers(
    names: list[str], pipeline: Any, library: Path, make_worker: MakeWorker
) -> None:
    base = weights_of(pipeline)
    worker = make_worker()
    strengths = [0.7, -0.4, 1.3][: len(names)]
    worker.apply_to_pipeline(pipeline, names, strengths)
    ours = weights_of(pipeline)
    worker.remove_from_pipeline(pipeline)
    paths = [Path(worker.catalog.find(name).path) for name in names]
    everywhere = [dict.fromkeys(_components(path), strength) for path, strength in zip(paths, strengths, strict=True)]
    assert_same_update(base, ours, fused_by_diffusers(pipeline, list(zip(paths, everywhere, strict=True))))


def _components(path: Path) -> list[str]:
    keys = load_file(path).keys()
    marks = {
        "unet": ("unet.", "lora_unet_"),
        "text_encoder": ("text_encoder.", "lora_te1_"),
        "text_encoder_2": ("text_encoder_2.", "lora_te2_"),
    }
    return [component for component, prefixes in marks.items() if any(key.startswith(prefixes) for key in keys)]


def test_peft_configuration_in_the_header_sets_the_scale(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rsLoRA and a module with an alpha of its own; without the header every scale would be 1."""
    config = {"use_rslora": True, "alpha_pattern": {"to_q": 1.0}}
    monkeypatch.setattr("tiny_loras.LoraConfig", lambda **given: LoraConfig(**given, **config))
    path = tmp_path / "rs.safetensors"
    save_peft_lora(pipeline, path, rank=4, alpha=8.0, gain=0.2, seed=1, text=False)
    base = weights_of(pipeline)
    worker = make_worker(lora_directories=tmp_path)
    worker.apply_to_pipeline(pipeline, "rs")
    ours = weights_of(pipeline)
    worker.remove_from_pipeline(pipeline)
    assert_same_update(base, ours, fused_by_diffusers(pipeline, [(path, {"unet": 1.0})]))


def test_tucker_convolution(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    weight = pipeline.unet.down_blocks[0].resnets[0].conv1.weight.detach().clone()
    out_features, in_features = weight.shape[:2]
    generator = torch.Generator().manual_seed(0)
    up, down, mid = (
        torch.randn(*shape, generator=generator)
        for shape in ((out_features, 3, 1, 1), (3, in_features, 1, 1), (3, 3, 3, 3))
    )
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid, "alpha": torch.tensor(1.5)}
    save_file({f"{name}.{key}": value for key, value in tensors.items()}, tmp_path / "tucker.safetensors")
    make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, [("tucker", 0.8)])
    delta = torch.einsum("or,rskl,si->oikl", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    ours = pipeline.unet.down_blocks[0].resnets[0].conv1.weight
    torch.testing.assert_close(ours, weight + delta * (0.8 * 1.5 / 3), rtol=1e-5, atol=1e-5)


def test_the_share_of_a_tucker_convolution_counts_its_core(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    channels = pipeline.unet.down_blocks[0].resnets[0].conv1.weight.shape[0]
    tensors = {}
    for block, core in ((0, 4.0), (7, 3.0)):
        name = f"lora_unet_down_blocks_{block}_resnets_0_conv1"
        tensors[f"{name}.lora_up.weight"] = torch.ones(channels, 2, 1, 1)
        tensors[f"{name}.lora_down.weight"] = torch.ones(2, channels, 1, 1)
        tensors[f"{name}.lora_mid.weight"] = torch.full((2, 2, 3, 3), core)
    save_file(tensors, tmp_path / "tucker.safetensors")
    (lora,) = make_worker(lora_directories=tmp_path).apply_to_pipeline(pipeline, "tucker").loras
    assert (lora.matched, len(lora.unmatched)) == (1, 1)
    assert lora.matched_share == pytest.approx(4 / 5)


def test_clip_strength_is_for_text_encoders_and_model_strength_for_the_rest(
    pipeline: Any, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    base = weights_of(pipeline)
    worker.apply_to_pipeline(pipeline, [("characters/fox", 0.0, 0.5)])
    assert {key.partition(".")[0] for key in changed(base, weights_of(pipeline))} == {"text_encoder", "text_encoder_2"}
    worker.apply_to_pipeline(pipeline, [("characters/fox", 0.5, 0.0)])
    assert {key.partition(".")[0] for key in changed(base, weights_of(pipeline))} == {"unet"}


def test_a_lora_that_stands_twice_counts_twice(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.apply_to_pipeline(pipeline, [("ink", 0.5), ("ink", 0.25)])
    twice = weights_of(pipeline)
    worker.apply_to_pipeline(pipeline, [("ink", 0.75)])
    for key, value in weights_of(pipeline).items():
        torch.testing.assert_close(value, twice[key], rtol=1e-5, atol=1e-6)


ROWS = st.builds(
    LoraRow,
    st.sampled_from(["styles/ink", "characters/fox", "styles/wash", "details/grain"]),
    st.sampled_from([0.0, 0.3, -0.7, 1.0]),
    st.sampled_from([0.0, 0.4, 1.0]),
)


# No shrinking: at a second per example it would take minutes.
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(stacks=st.lists(st.lists(ROWS, max_size=3), min_size=1, max_size=4), half=st.booleans())
def test_any_sequence_of_stacks_depends_on_the_last_alone_and_leaves_no_trace(
    stacks: list[list[LoraRow]], half: bool, sdxl: Any, make_worker: MakeWorker
) -> None:
    dtype = torch.bfloat16 if half else torch.float32
    before = weights_of(sdxl)
    try:
        for component in COMPONENTS:
            getattr(sdxl, component).to(dtype)
        base = weights_of(sdxl)
        worker = make_worker()
        for rows in stacks:
            worker.apply_to_pipeline(sdxl, LoraStack(tuple(rows)))
        reached = weights_of(sdxl)
        worker.forget(sdxl)
        assert changed(base, weights_of(sdxl)) == set()
        worker.apply_to_pipeline(sdxl, LoraStack(tuple(stacks[-1])))
        assert changed(reached, weights_of(sdxl)) == set()
        worker.remove_from_pipeline(sdxl)
        assert changed(base, weights_of(sdxl)) == set()
    finally:
        for component in COMPONENTS:
            model = getattr(sdxl, component).to(torch.float32)
            prefix = f"{component}."
            model.load_state_dict({k.removeprefix(prefix): v for k, v in before.items() if k.startswith(prefix)})


def test_each_form_of_a_stack_means_the_same(pipeline: Any, make_worker: MakeWorker) -> None:
    worker = make_worker()
    forms: list[Any] = [
        [("styles/ink", 0.6)],
        {"styles/ink": 0.6},
        "<lora:styles/ink:0.6>",
        '[{"name": "styles/ink", "weight": 0.6}]',
        {"lora": {"global_weight": 0.5, "models": [{"name": "ink", "weight": 1.2, "category": "styles"}]}},
        {"category_weights": {"styles": 0.6}, "models": ["styles/ink"]},
        LoraStack((LoraRow("styles/ink", 0.6, 0.6),)),
    ]
    seen = []
    for form in forms:
        worker.apply_to_pipeline(pipeline, form)
        seen.append(weights_of(pipeline))
    assert all(changed(seen[0], other) == set() for other in seen[1:])
