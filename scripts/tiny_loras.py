"""LoRA files in the formats that people have, with random weights: saved by diffusers and peft, and in kohya's form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_MODULES = (*UNET_ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
UNET_CONVOLUTIONS = ("conv1", "conv2")
TEXT_MODULES = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_KOHYA_PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
_SGM_LAYERS = {"conv1": "in_layers_2", "conv2": "out_layers_3"}


def save_peft_lora(
    pipeline: StableDiffusionXLPipeline, path: Path, *, rank: int, alpha: float, gain: float, seed: int, text: bool
) -> None:
    """As a trainer built on diffusers saves it: PEFT adapters, `save_lora_weights`, the configuration in the header.

    `gain`: Frobenius norm of each update over that of its weight, at strength 1.
    """
    generator = torch.Generator().manual_seed(seed)
    models = {"unet": (pipeline.unet, UNET_MODULES)}
    if text:
        models["text_encoder"] = (pipeline.text_encoder, TEXT_MODULES)
        models["text_encoder_2"] = (pipeline.text_encoder_2, TEXT_MODULES)
    layers = {}
    for component, (model, targets) in models.items():
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets)), adapter_name="default")
        state = get_peft_model_state_dict(model)
        layers[component] = _randomised(model, state, gain, alpha / rank, generator)
    pipeline.save_lora_weights(
        path.parent,
        weight_name=path.name,
        **{f"{component}_lora_layers": state for component, state in layers.items()},
        **_collate_lora_metadata({component: model for component, (model, _) in models.items()}),
    )
    for model, _ in models.values():
        model.delete_adapters("default") if hasattr(model, "delete_adapters") else model.delete_adapter("default")
    _strip_peft(models[component][0] for component in models)


def kohya_lora(
    pipeline: StableDiffusionXLPipeline,
    *,
    rank: int,
    alpha: float,
    gain: float,
    seed: int,
    components: Iterable[str] = ("unet", "text_encoder", "text_encoder_2"),
    convolutions: bool = False,
) -> dict[str, torch.Tensor]:
    """The keys of kohya's sd-scripts for SDXL: `lora_unet_input_blocks_...`, `lora_te1_...`, with alphas."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for component in components:
        model = getattr(pipeline, component)
        targets = TEXT_MODULES if component != "unet" else UNET_MODULES + UNET_CONVOLUTIONS * convolutions
        for module, weight in _weights(model, targets):
            down, up = _pair(weight, rank, gain / (alpha / rank), generator)
            name = f"{_KOHYA_PREFIXES[component]}_{_kohya_name(component, module)}"
            state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            state[f"{name}.alpha"] = torch.tensor(alpha)
    return {key: value.contiguous() for key, value in state.items()}


def save_kohya_lora(state: Mapping[str, torch.Tensor], path: Path, *, rank: int, alpha: float, title: str) -> None:
    """`.safetensors` with the header that sd-scripts writes, or what `torch.save` makes of it for any other suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".safetensors":
        torch.save(dict(state), path)
        return
    header = {
        "ss_output_name": title,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": "sdxl_base_v1-0",
    }
    save_file(dict(state), path, metadata=header)


def _weights(model: torch.nn.Module, targets: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
    endings = tuple(f".{target}" for target in targets)
    for name, module in model.named_modules():
        if name.endswith(endings) and isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            yield name, module.weight.detach()


def _pair(
    weight: torch.Tensor, rank: int, gain: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random factors whose product has `gain` times the norm of `weight` (out, in[, kernel])."""
    out_features, in_features, *kernel = weight.shape
    down = torch.randn(rank, in_features, *kernel, generator=generator)
    up = torch.randn(out_features, rank, *(1 for _ in kernel), generator=generator)
    norm = torch.linalg.norm(up.flatten(1) @ down.flatten(1))
    up *= gain * float(torch.linalg.norm(weight)) / float(norm)
    return down, up


def _randomised(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], gain: float, scale: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    random: dict[str, torch.Tensor] = {}
    for key in state:
        if key.endswith("lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            base = model.get_submodule(module).base_layer.weight.detach()
            down, up = _pair(base, state[key].shape[0], gain / scale, generator)
            random |= {key: down.contiguous(), f"{module}.lora_B.weight": up.contiguous()}
    return random


def _strip_peft(models: Iterable[torch.nn.Module]) -> None:
    """`delete_adapter` leaves the wrapping layers in place, under whose names no later LoRA would match."""
    for model in models:
        for name, module in list(model.named_modules()):
            if hasattr(module, "get_base_layer"):
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, module.get_base_layer())


def _kohya_name(component: str, module: str) -> str:
    if component != "unet":
        return f"text_model_{module.removeprefix('text_model.')}".replace(".", "_")
    return _sgm_name(module).replace(".", "_")


def _sgm_name(module: str) -> str:
    """kohya trains SDXL on the original UNet: blocks are numbered through, two layers and a resampler per level."""
    found = re.fullmatch(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", module)
    if found:
        stem, first = ("input_blocks", 1) if found[1] == "down_blocks" else ("output_blocks", 0)
        number = first + 3 * int(found[2]) + int(found[4])
        return f"{stem}.{number}.{int(found[3] == 'attentions')}.{_SGM_LAYERS.get(found[5], found[5])}"
    found = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)
    if found:
        number = 1 if found[1] == "attentions" else 2 * int(found[2])
        inner = _SGM_LAYERS.get(found[3], found[3])
        return f"middle_block.{number}.{inner}"
    return module
