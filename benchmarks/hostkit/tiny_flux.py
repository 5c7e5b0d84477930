"""Recipe B: the smallest Flux (0.97 M parameters) for UNETLoader, and its autoencoder for VAELoader."""

from __future__ import annotations

from pathlib import Path

from .layers import Tensors, linear, tiny_autoencoder
from .tensor_writer import Tensor, constant, write_tensors

_WIDTH = 128

MODULES: dict[str, tuple[int, int]] = {
    "img_in": (_WIDTH, 64),
    "txt_in": (_WIDTH, 64),
    "time_in.in_layer": (_WIDTH, 256),
    "time_in.out_layer": (_WIDTH, _WIDTH),
    "vector_in.in_layer": (_WIDTH, 64),
    "vector_in.out_layer": (_WIDTH, _WIDTH),
    **{
        f"double_blocks.0.{part}_{name}": shape
        for part in ("img", "txt")
        for name, shape in (
            ("mod.lin", (768, _WIDTH)),
            ("attn.qkv", (384, _WIDTH)),
            ("attn.proj", (_WIDTH, _WIDTH)),
            ("mlp.0", (512, _WIDTH)),
            ("mlp.2", (_WIDTH, 512)),
        )
    },
    "single_blocks.0.linear1": (896, _WIDTH),
    "single_blocks.0.linear2": (_WIDTH, 640),
    "single_blocks.0.modulation.lin": (384, _WIDTH),
    "final_layer.linear": (64, _WIDTH),
    "final_layer.adaLN_modulation.1": (256, _WIDTH),
}
"""Every linear layer -> (out_features, in_features)."""

_QK_NORMS = (
    "double_blocks.0.img_attn.norm.query_norm", "double_blocks.0.img_attn.norm.key_norm",
    "double_blocks.0.txt_attn.norm.query_norm", "double_blocks.0.txt_attn.norm.key_norm",
    "single_blocks.0.norm.query_norm", "single_blocks.0.norm.key_norm",
)  # fmt: skip


def write_unet(path: Path, *, seed: int = 2) -> int:
    tensors: Tensors = {}
    for name, (out_features, in_features) in MODULES.items():
        tensors |= linear(name, out_features, in_features)
    tensors |= {f"{name}.weight": Tensor((_WIDTH,), constant(1)) for name in _QK_NORMS}
    return write_tensors(path, tensors, seed=seed)


def write_vae(path: Path, *, seed: int = 3) -> int:
    return write_tensors(path, tiny_autoencoder(16), seed=seed)
