"""LoraPipeline: what is asked of a diffusers pipeline; Place: one of its weights."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch


class Place(NamedTuple):
    """One weight of a pipeline."""

    component: str
    """Attribute of the pipeline: `unet`, `transformer`, `text_encoder`, ..."""
    module: str
    """Dotted path of the module inside the component."""


class LoraPipeline(Protocol):
    """What is asked of a diffusers pipeline: any class with a LoRA loader mixin."""

    _lora_loadable_modules: list[str]
    device: torch.device

    def __call__(self, **inputs: Any) -> Any: ...

    @classmethod
    def lora_state_dict(cls, state: dict[str, torch.Tensor], /, **options: Any) -> Any: ...
