"""Recipe B: the smallest Flux (0.97 M parameters) for UNETLoader, and its autoencoder for VAELoader."""

from __future__ import annotations

from pathlib import Path

from .layers import Tensors, linear, tiny_autoencoder
from .tensor_writer import Tensor, constant, write_tensors

_HEAD = 128
_WIDTH = _HEAD


def modules(width: int) -> dict[str, tuple[int, int]]:
    """Every linear layer -> (out_features, in_features); `width` in whole heads."""
    block = (
        ("mod.lin", (6 * width, width)),
        ("attn.qkv", (3 * width, width)),
        ("attn.proj", (width, width)),
        ("mlp.0", (4 * width, width)),
        ("mlp.2", (width, 4 * width)),
    )
    return {
        "img_in": (width, 64),
        "txt_in": (width, 64),
        "time_in.in_layer": (width, 256),
        "time_in.out_layer": (width, width),
        "vector_in.in_layer": (width, 64),
        "vector_in.out_layer": (width, width),
        **{f"double_blocks.0.{part}_{name}": shape for part in ("img", "txt") for name, shape in block},
        "single_blocks.0.linear1": (7 * width, width),
        "single_blocks.0.linear2": (width, 5 * width),
        "single_blocks.0.modulation.lin": (3 * width, width),
        "final_layer.linear": (64, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }


MODULES = modules(_WIDTH)

_QK_NORMS = (
    "double_blocks.0.img_attn.norm.query_norm", "double_blocks.0.img_attn.norm.key_norm",
    "double_blocks.0.txt_attn.norm.query_norm", "double_blocks.0.txt_attn.norm.key_norm",
    "single_blocks.0.norm.query_norm", "single_blocks.0.norm.key_norm",
)  # fmt: skip


def write_unet(path: Path, *, seed: int = 2, width: int = _WIDTH) -> int:
    tensors: Tensors = {}
    for name, (out_features, in_features) in modules(width).items():
        tensors |= linear(name, out_features, in_features)
    tensors |= {f"{name}.weight": Tensor((_HEAD,), constant(1)) for name in _QK_NORMS}
    return write_tensors(path, tensors, seed=seed)


def write_vae(path: Path, *, seed: int = 3) -> int:
    return write_tensors(path, tiny_autoencoder(16), seed=seed)
