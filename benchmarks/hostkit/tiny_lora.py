"""LoRAs for the tiny models, in the three naming families that users have; `rank` chooses the file's size.

Bytes per rank: SD1.5 UNet 21 kB, with text encoder 353 kB (fp16); Flux 17 kB (fp16), 35 kB (fp32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from . import tiny_flux, tiny_sd15
from .tensor_writer import Tensor, constant, gaussian, write_tensors

Tensors = dict[str, Tensor]

_SD15_BLOCKS = {
    "kohya": "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0",
    "ldm": "lora_unet_input_blocks_1_1_transformer_blocks_0",
}
_FLUX_DIFFUSERS: dict[str, tuple[int, int]] = {
    **{f"transformer_blocks.0.attn.{name}": (128, 128) for name in ("to_q", "to_k", "to_v")},
    "single_transformer_blocks.0.proj_out": (128, 640),
}


def write_sd15_lora(
    path: Path, *, seed: int, rank: int = 4, unet: bool = True, text_encoder: bool = True, naming: str = "kohya",
    metadata: Mapping[str, str] | None = None, dtype: str = "float16",
) -> int:  # fmt: skip
    """`naming` is "kohya" or "ldm" (both use `.lora_up`/`.lora_down` with an alpha). Returns the file's bytes."""
    tensors: Tensors = {}
    if unet:
        for name, shape in tiny_sd15.UNET_MODULES.items():
            tensors |= _kohya(f"{_SD15_BLOCKS[naming]}_{name.replace('.', '_')}", shape, rank, dtype)
    if text_encoder:
        for layer in range(12):
            for name, shape in tiny_sd15.CLIP_MODULES.items():
                module = f"lora_te_text_model_encoder_layers_{layer}_{name.replace('.', '_')}"
                tensors |= _kohya(module, shape, rank, dtype)
    return write_tensors(path, tensors, seed=seed, metadata=metadata)


def write_flux_lora(
    path: Path, *, seed: int, rank: int = 4, naming: str = "native", dtype: str = "float16",
    metadata: Mapping[str, str] | None = None,
) -> int:  # fmt: skip
    """`naming` is "native" (whole modules) or "diffusers" (q, k and v are slices of one fused weight). Returns the
    file's bytes."""
    prefix, modules = (
        ("transformer.", _FLUX_DIFFUSERS) if naming == "diffusers" else ("diffusion_model.", tiny_flux.MODULES)
    )
    tensors: Tensors = {}
    for name, shape in modules.items():
        tensors |= _peft(f"{prefix}{name}", shape, rank, dtype)
    return write_tensors(path, tensors, seed=seed, metadata=metadata)


def flux_rank_for(nbytes: int, dtype: str = "float32") -> int:
    """The rank at which a native Flux LoRA takes about `nbytes`."""
    per_rank = sum(sum(shape) for shape in tiny_flux.MODULES.values()) * (4 if dtype == "float32" else 2)
    return max(1, nbytes // per_rank)


def _kohya(module: str, shape: tuple[int, int], rank: int, dtype: str) -> Tensors:
    out_features, in_features = shape
    return {
        f"{module}.lora_up.weight": Tensor((out_features, rank), gaussian(_up_std(rank)), dtype),
        f"{module}.lora_down.weight": Tensor((rank, in_features), gaussian(1 / math.sqrt(in_features)), dtype),
        f"{module}.alpha": Tensor((), constant(rank), dtype),
    }


def _peft(module: str, shape: tuple[int, int], rank: int, dtype: str) -> Tensors:
    out_features, in_features = shape
    return {
        f"{module}.lora_A.weight": Tensor((rank, in_features), gaussian(1 / math.sqrt(in_features)), dtype),
        f"{module}.lora_B.weight": Tensor((out_features, rank), gaussian(_up_std(rank)), dtype),
    }


def _up_std(rank: int) -> float:
    """Keeps the update as strong as at rank 4, so a large file does not drive the picture to NaN."""
    return math.sqrt(min(1.0, 4 / rank))
