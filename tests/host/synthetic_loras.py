"""LoRA files of every adapter type that the host knows, for the tiny models. Runs inside the host's Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from hostkit.models import lora_path
from safetensors.torch import save_file

_MODULES = {"double_blocks.0.img_attn.qkv": (384, 128), "double_blocks.0.txt_mlp.0": (512, 128), "img_in": (128, 64)}
_RANK = 4

Tensors = dict[str, torch.Tensor]
Maker = Callable[[str, int, int, torch.Generator], Tensors]
"""(module, out_features, in_features, generator) -> the module's tensors."""


def write_flux_kinds(base: Path) -> list[str]:
    """One file per adapter type, all on the same modules, so that their order matters. Returns the names."""
    makers: dict[str, Maker] = {
        "lora": _lora, "dora": _dora, "lora2": _lora, "loha": _loha, "lokr": _lokr, "oft": _oft, "lora3": _sliced,
        "boft": _boft, "diff": _diff, "glora": _glora, "lora4": _lora, "set": _set, "norm": _norm,
    }  # fmt: skip
    return [
        _write(base, f"kinds/{kind}.safetensors", _all(make, seed)) for seed, (kind, make) in enumerate(makers.items())
    ]


def write_wide_kinds(base: Path) -> list[str]:
    """Files of the types whose form tells the weight's, on the same modules, for a model with 16 more rows to each."""
    makers: dict[str, Maker] = {
        "lora": _lora, "dora": _dora, "loha": _loha, "lokr": _lokr, "oft": _oft, "boft": _boft, "norm": _norm
    }  # fmt: skip
    return [_write(base, f"wide/{kind}.safetensors", _all(make, 50, wider=16)) for kind, make in makers.items()]


def write_sd15_convolutions(base: Path, seed: int) -> str:
    """3x3 convolutions, one of them with a Tucker core; a 1x1; and a plain linear layer."""
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "0_in_layers_2.lora_up": (320, 6, 1, 1), "0_in_layers_2.lora_down": (6, 320, 3, 3),
        "0_out_layers_3.lora_up": (320, 6, 1, 1), "0_out_layers_3.lora_down": (6, 320, 1, 1),
        "0_out_layers_3.lora_mid": (6, 6, 3, 3), "1_proj_in.lora_up": (320, 6, 1, 1),
        "1_proj_in.lora_down": (6, 320, 1, 1),
        "0_emb_layers_1.lora_up": (320, 6), "0_emb_layers_1.lora_down": (6, 1280),
    }  # fmt: skip
    tensors = {f"lora_unet_input_blocks_1_{name}.weight": _random(g, *shape) for name, shape in shapes.items()}
    tensors["lora_unet_input_blocks_1_0_out_layers_3.alpha"] = torch.tensor(3.0)
    return _write(base, f"kinds/convolutions{seed}.safetensors", tensors)


def write_products(base: Path) -> list[str]:
    """Files of the adapter types whose update is a product of what is in the file; the last one is for SD 1.5."""
    makers: dict[str, Maker] = {"lora": _lora, "loha": _loha, "lokr": _lokr, "split": _lokr_split}
    names = [_write(base, f"products/{kind}.safetensors", _all(make, 70)) for kind, make in makers.items()]
    return [*names, write_sd15_convolutions(base, 3)]


def write_misfit(base: Path) -> str:
    """Two modules of the tiny Flux; the factors of one are for a wider model."""
    g = torch.Generator().manual_seed(3)
    shapes = {"img_in.lora_B": (256, 4), "img_in.lora_A": (4, 64), "txt_in.lora_B": (128, 4), "txt_in.lora_A": (4, 64)}
    tensors = {f"diffusion_model.{name}.weight": _random(g, *shape) for name, shape in shapes.items()}
    return _write(base, "kinds/misfit.safetensors", tensors)


def write_padding(base: Path) -> str:
    """A file for a model whose first weight is twice as wide, which the host pads the weight for."""
    tensors = _lora("diffusion_model.img_in", 128, 128, torch.Generator().manual_seed(6))
    tensors["diffusion_model.img_in.reshape_weight"] = torch.tensor([128, 128])
    return _write(base, "kinds/padding.safetensors", tensors)


def write_padded(base: Path) -> str:
    """A file for the weight that `write_padding` leaves, and padding nothing itself."""
    tensors = _lora("diffusion_model.img_in", 128, 128, torch.Generator().manual_seed(7))
    return _write(base, "kinds/padded.safetensors", tensors)


def write_with_metadata(base: Path, metadata: dict[str, str]) -> str:
    tensors = _lora("diffusion_model.img_in", 128, 64, torch.Generator().manual_seed(4))
    return _write(base, "kinds/metadata.safetensors", tensors, metadata)


def _write(base: Path, name: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> str:
    path = lora_path(base, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return name


def _all(make: Maker, seed: int, *, wider: int = 0) -> Tensors:
    g = torch.Generator().manual_seed(100 + seed)
    tensors: Tensors = {}
    for module, (out_features, in_features) in _MODULES.items():
        tensors |= make(f"diffusion_model.{module}", out_features + wider, in_features, g)
    return tensors


def _random(g: torch.Generator, *shape: int) -> torch.Tensor:
    return 0.3 * torch.randn(shape, generator=g)


def _lora(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {
        f"{x}.lora_up.weight": _random(g, o, _RANK).half(),
        f"{x}.lora_down.weight": _random(g, _RANK, i).half(),
        f"{x}.alpha": torch.tensor(2.0),
    }


def _sliced(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    """q, k and v as separate modules where the weight is fused; whole elsewhere."""
    if not x.endswith("img_attn.qkv"):
        return _lora(x, o, i, g)
    tensors: Tensors = {}
    for name in ("to_q", "to_k", "to_v"):
        module = f"transformer.transformer_blocks.0.attn.{name}"
        tensors |= {
            f"{module}.lora_B.weight": _random(g, o // 3, _RANK),
            f"{module}.lora_A.weight": _random(g, _RANK, i),
        }
    return tensors


def _dora(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {**_lora(x, o, i, g), f"{x}.dora_scale": 1 + _random(g, o, 1).abs()}


def _loha(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {
        f"{x}.hada_w1_a": _random(g, o, _RANK), f"{x}.hada_w1_b": _random(g, _RANK, i),
        f"{x}.hada_w2_a": _random(g, o, _RANK), f"{x}.hada_w2_b": _random(g, _RANK, i), f"{x}.alpha": torch.tensor(2.0),
    }  # fmt: skip


def _lokr(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {
        f"{x}.lokr_w1": _random(g, 4, 4),
        f"{x}.lokr_w2": _random(g, o // 4, i // 4),
        f"{x}.alpha": torch.tensor(1.0),
    }


def _lokr_split(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    """Both sides in factors, of different ranks."""
    return {
        f"{x}.lokr_w1_a": _random(g, 16, 2), f"{x}.lokr_w1_b": _random(g, 2, 16),
        f"{x}.lokr_w2_a": _random(g, o // 16, 3), f"{x}.lokr_w2_b": _random(g, 3, i // 16),
        f"{x}.alpha": torch.tensor(2.0),
    }  # fmt: skip


def _glora(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {
        f"{x}.a1.weight": _random(g, i, _RANK), f"{x}.a2.weight": _random(g, _RANK, i),
        f"{x}.b1.weight": _random(g, o, _RANK), f"{x}.b2.weight": _random(g, _RANK, i),
    }  # fmt: skip


def _oft(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {f"{x}.oft_blocks": 0.1 * _random(g, o // 16, 16, 16), f"{x}.alpha": torch.tensor(0.5)}


def _boft(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {f"{x}.oft_blocks": 0.1 * _random(g, 2, o // 16, 16, 16), f"{x}.alpha": torch.tensor(0.5)}


def _diff(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {f"{x}.diff": _random(g, o, i), f"{x}.diff_b": _random(g, o)}


def _set(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    # One module only: setting all of them would make every order of what came before look right.
    return {f"{x}.set_weight": _random(g, o, i)} if x.endswith("img_in") else _lora(x, o, i, g)


def _norm(x: str, o: int, i: int, g: torch.Generator) -> Tensors:
    return {f"{x}.w_norm": _random(g, o, i), f"{x}.b_norm": _random(g, o)}
