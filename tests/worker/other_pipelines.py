"""Pipelines of other families, as far as LoRAs see them: the real converters, and linear layers where those lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FluxPipeline, StableDiffusionXLPipeline, WanPipeline

FEATURES = 8


class OtherPipeline:
    """Each component a tree of linear layers of FEATURES x FEATURES at the given paths."""

    _lora_loadable_modules: Sequence[str] = ()
    device = torch.device("cpu")

    def __init__(self, **layers: Sequence[str] | None) -> None:
        for component, paths in layers.items():
            setattr(self, component, None if paths is None else tree(paths))


class FluxLike(OtherPipeline):
    _lora_loadable_modules = FluxPipeline._lora_loadable_modules
    transformer_name = FluxPipeline.transformer_name
    lora_state_dict: Any = FluxPipeline.lora_state_dict
    _maybe_expand_lora_state_dict: Any = FluxPipeline._maybe_expand_lora_state_dict


class OtherFluxLike(FluxLike):
    """As FluxImg2ImgPipeline is to FluxPipeline: another class with the same converter."""


class WanLike(OtherPipeline):
    _lora_loadable_modules = WanPipeline._lora_loadable_modules
    lora_state_dict: Any = WanPipeline.lora_state_dict


class StableDiffusionXLLike(OtherPipeline):
    _lora_loadable_modules = StableDiffusionXLPipeline._lora_loadable_modules
    lora_state_dict: Any = StableDiffusionXLPipeline.lora_state_dict


def tree(paths: Sequence[str]) -> torch.nn.Module:
    root = torch.nn.Module()
    for path in paths:
        at = root
        *parents, leaf = path.split(".")
        for name in parents:
            if not hasattr(at, name):
                at.add_module(name, torch.nn.Module())
            at = at.get_submodule(name)
        at.add_module(leaf, torch.nn.Linear(FEATURES, FEATURES, bias=False))
    return root


def pair(module: str, seed: int, *, alpha: float | None, rank: int = 4, down: str, up: str) -> dict[str, torch.Tensor]:
    """A random pair in a file's names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"{module}.{down}.weight": torch.randn(rank, FEATURES, generator=generator),
        f"{module}.{up}.weight": torch.randn(FEATURES, rank, generator=generator),
    }
    return tensors if alpha is None else {**tensors, f"{module}.alpha": torch.tensor(alpha)}


def kohya_pair(module: str, seed: int, *, alpha: float | None = 1.0) -> dict[str, torch.Tensor]:
    return pair(module, seed, alpha=alpha, down="lora_down", up="lora_up")


def delta(tensors: Mapping[str, torch.Tensor], module: str) -> torch.Tensor:
    """What the file says: alpha / rank * up @ down."""
    down = next(value for key, value in tensors.items() if key.startswith(f"{module}.lora_down"))
    up = next(value for key, value in tensors.items() if key.startswith(f"{module}.lora_up"))
    alpha = tensors.get(f"{module}.alpha", torch.tensor(float(down.shape[0])))
    return float(alpha) / down.shape[0] * up @ down
