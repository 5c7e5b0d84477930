"""Fused projections: copies of an attention's weights that `fuse_qkv_projections` makes, and that its passes read in
place of the weights. Diffusers does not keep them in step."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from .originals import weight_of

_PARTS = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}


def is_fused(module: torch.nn.Module) -> bool:
    return bool(vars(module).get("fused_projections"))


def copy_into_fused(
    attention: torch.nn.Module,
    written: Collection[int],
    owner_of: Callable[[torch.nn.Module], torch.nn.Module],
) -> None:
    """Brings the copies of those weights up to date whose ids are among `written`: layers may share a weight."""
    for name, parts in _PARTS.items():
        copy = attention._modules.get(name)
        if copy is None:
            continue
        owners = [owner_of(attention.get_submodule(part)) for part in parts]
        rows = weight_of(owner_of(copy)).split([len(weight_of(owner)) for owner in owners])
        for row, owner in zip(rows, owners, strict=True):
            if id(weight_of(owner)) in written:
                row.copy_(weight_of(owner))
