"""Recipe A: the smallest checkpoint that ComfyUI takes for SD1.5, text encoder included (278 MB apparent, 32 MB on
disk)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .layers import Tensors, conv, linear, norm, residual_block, tiny_autoencoder
from .tensor_writer import Tensor, gaussian, write_tensors

_UNET = "model.diffusion_model."
_CLIP = "cond_stage_model.transformer.text_model."
_CLIP_LAYERS = 12

UNET_MODULES: dict[str, tuple[int, int]] = {
    **{f"attn1.{name}": (320, 320) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"attn2.{name}": (320, 320) for name in ("to_q", "to_out.0")},
    **{f"attn2.{name}": (320, 768) for name in ("to_k", "to_v")},
    "ff.net.0.proj": (2560, 320),
    "ff.net.2": (320, 1280),
}
"""Modules of the one transformer block that a LoRA can patch -> (out_features, in_features)."""

CLIP_MODULES: dict[str, tuple[int, int]] = {
    **{f"self_attn.{name}": (768, 768) for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "mlp.fc1": (3072, 768),
    "mlp.fc2": (768, 3072),
}


def write_checkpoint(path: Path, *, with_clip: bool = True, seed: int = 1, dense: bool = False) -> int:
    """Write the checkpoint for CheckpointLoaderSimple. Returns its apparent size in bytes; `dense`: without holes, so
    that all of it is read from the disk."""
    tensors = _unet() | tiny_autoencoder(4, "first_stage_model.")
    if with_clip:
        tensors |= _clip()
    if dense:
        tensors = {name: replace(tensor, fill=tensor.fill or gaussian(0.02)) for name, tensor in tensors.items()}
    return write_tensors(path, tensors, seed=seed)


def _unet() -> Tensors:
    width, embedding = 320, 1280
    block = f"{_UNET}input_blocks.1.1"
    tensors = linear(f"{_UNET}time_embed.0", embedding, width) | linear(f"{_UNET}time_embed.2", embedding, embedding)
    tensors |= conv(f"{_UNET}input_blocks.0.0", width, 4) | residual_block(f"{_UNET}input_blocks.1.0", width, width)
    tensors |= norm(f"{block}.norm", width)
    tensors |= conv(f"{block}.proj_in", width, width, 1) | conv(f"{block}.proj_out", width, width, 1)
    for name, (out_features, in_features) in UNET_MODULES.items():
        biased = not name.endswith(("to_q", "to_k", "to_v"))
        tensors |= linear(f"{block}.transformer_blocks.0.{name}", out_features, in_features, bias=biased)
    for index in (1, 2, 3):
        tensors |= norm(f"{block}.transformer_blocks.0.norm{index}", width)
    for index in (0, 1):
        tensors |= residual_block(f"{_UNET}output_blocks.{index}.0", 2 * width, width)
    return tensors | norm(f"{_UNET}out.0", width) | conv(f"{_UNET}out.2", 4, width)


def _clip() -> Tensors:
    """Every key that CLIP-L needs (a missing one is uninitialised memory); all matrices are holes, so only LoRAs
    fill them."""
    tensors: Tensors = {
        f"{_CLIP}embeddings.token_embedding.weight": Tensor((49408, 768)),
        f"{_CLIP}embeddings.position_embedding.weight": Tensor((77, 768), gaussian(0.5)),
    }
    for layer in range(_CLIP_LAYERS):
        prefix = f"{_CLIP}encoder.layers.{layer}"
        tensors |= norm(f"{prefix}.layer_norm1", 768) | norm(f"{prefix}.layer_norm2", 768)
        for name, (out_features, in_features) in CLIP_MODULES.items():
            tensors[f"{prefix}.{name}.weight"] = Tensor((out_features, in_features))
            tensors[f"{prefix}.{name}.bias"] = Tensor((out_features,))
    return tensors | norm(f"{_CLIP}final_layer_norm", 768)
