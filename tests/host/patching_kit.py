"""The tiny models with stacks on them, by us and by a chain of stock loaders, and what equal means for the two."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from hostkit import graphs
from hostkit.models import lora_path

from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.file import LoraFile
from warmstack.lora.stacks.row import LoraRow
from warmstack.nodes.patches.applied_stack import AppliedStack, apply_stack
from warmstack.nodes.patches.leasing import LeasedRow, lease_rows
from warmstack.nodes.patches.target_model import TargetModels

Row = tuple[str, float, float]

FLUX_ROWS: list[Row] = [
    ("flux/native0.safetensors", 0.8, 0.0), ("flux/diffusers0.safetensors", -0.5, 0.0),
    ("flux/native1.safetensors", 1.0, 0.0), ("flux/diffusers1.safetensors", 0.35, 0.0),
    ("flux/native0.safetensors", 0.1, 0.0),
]  # fmt: skip
SD15_ROWS: list[Row] = [
    ("styles/ink.safetensors", 0.8, 0.6), ("styles/ldm.safetensors", 0.5, 1.0),
    ("characters/mira.safetensors", 1.0, 0.0), ("styles/oil.safetensors", 0.0, -0.7),
]  # fmt: skip


class Bench:
    """The tiny models, one cache and one memory of base models."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.cache = AdapterCache(ByteBudget(1 << 28))
        self.target_models = TargetModels()

    def flux(self) -> Any:
        return comfy.sd.load_diffusion_model(str(self.base / "models/diffusion_models" / graphs.UNET))

    def packed_flux(self, format_name: str) -> Any:
        """With the weights of its blocks in one of the host's formats, as in a file that is made so."""
        weights = comfy.utils.load_torch_file(str(self.base / "models/diffusion_models" / graphs.UNET))
        layout = QUANT_ALGOS[format_name]["comfy_tensor_layout"]
        said = torch.tensor(list(json.dumps({"format": format_name}).encode()), dtype=torch.uint8)
        for key in [key for key, weight in weights.items() if "blocks" in key and weight.ndim == 2]:
            packed = QuantizedTensor.from_float(weights.pop(key).bfloat16(), layout)
            weights |= packed.state_dict(key) | {key.removesuffix("weight") + "comfy_quant": said}
        return comfy.sd.load_diffusion_model_state_dict(weights)

    def sd15(self) -> tuple[Any, Any]:
        path = self.base / "models/checkpoints" / graphs.CHECKPOINT
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False)
        return model, clip

    def path(self, name: str) -> Path:
        return lora_path(self.base, name)

    def file(self, name: str) -> LoraFile:
        found = os.stat(self.path(name))
        return LoraFile(name, str(self.path(name)), found.st_size, found.st_mtime_ns)

    def lease(self, rows: Sequence[Row]) -> tuple[LeasedRow, ...]:
        stack = [LoraRow(*row) for row in rows]
        return lease_rows(stack, lambda row: self.file(row.name), self.cache, lambda: False)

    def ours(self, model: Any, clip: Any, rows: Sequence[Row], math: Any) -> AppliedStack:
        return apply_stack(model, clip, self.lease(rows), math, self.target_models)

    def stock(self, model: Any, clip: Any, rows: Sequence[Row]) -> tuple[Any, Any]:
        """What a chain of LoraLoader nodes does."""
        for name, strength_model, strength_clip in rows:
            lora, metadata = comfy.utils.load_torch_file(str(self.path(name)), safe_load=True, return_metadata=True)
            model, clip = comfy.sd.load_lora_for_models(
                model, clip, lora, strength_model, strength_clip, lora_metadata=metadata
            )
        return model, clip


def _weights(patcher: Any) -> dict[str, torch.Tensor]:
    """Every patched weight as the model would use it."""
    return {key: patcher.patch_weight_to_device(key, return_weight=True) for key in patcher.patches}


def deltas_of(patcher: Any, keys: Sequence[str]) -> dict[str, torch.Tensor]:
    """Update of every weight in fp32, before the rounding to the weight's own dtype."""
    deltas = {}
    for key in keys:
        weight = comfy.utils.get_attr(patcher.model, key).detach().float()
        patched = comfy.lora.calculate_weight(patcher.patches.get(key, []), weight.clone(), key)
        deltas[key] = patched.double() - weight.double()
    return deltas


def assert_bit_equal(ours: Any, stock: Any) -> None:
    expected = _weights(stock)
    got = _weights(ours)
    assert got.keys() == expected.keys() and expected, (len(got), len(expected))
    for key, weight in expected.items():
        assert weight.dtype == got[key].dtype
        assert torch.equal(weight.view(torch.int16), got[key].view(torch.int16)), key


def assert_near(ours: Any, stock: Any, tolerance: float = 1e-6) -> None:
    keys = sorted(stock.patches)
    expected, got = deltas_of(stock, keys), deltas_of(ours, keys)
    assert any(delta.norm() > 0 for delta in expected.values())
    for key, delta in expected.items():
        assert (got[key] - delta).norm() <= tolerance * delta.norm(), (key, (got[key] - delta).norm() / delta.norm())


def assert_same_patches(ours: Any, stock: Any) -> None:
    """Same adapters, same order, same numbers: the host cannot tell the two patchers apart."""
    assert list(ours.patches) == list(stock.patches)
    for key, expected in stock.patches.items():
        got = ours.patches[key]
        assert [(p[0], p[2], p[3], p[4]) for p in got] == [(p[0], p[2], p[3], p[4]) for p in expected], key
        assert [type(p[1]) for p in got] == [type(p[1]) for p in expected]
