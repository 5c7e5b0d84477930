"""The modules that a LoRA file changes, and about how much it changes each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

SAMPLE_ELEMENTS = 4096

_FACTOR = frozenset(
    {
        *(
            f"lora_{side}{tail}"
            for side in ("up", "down", "mid", "A", "B")
            for tail in ("", ".weight", ".default.weight")
        ),
        *(f"{form}.{side}.weight" for form in ("lora", "lora_linear_layer") for side in ("up", "down")),
        *(f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
        *(f"lokr_{part}" for part in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")),
        *(f"{part}.weight" for part in ("a1", "a2", "b1", "b2")),
    }
)
_WHOLE = frozenset({"diff", "diff_b", "set_weight", "w_norm", "b_norm", "oft_blocks", "lora_B.bias"})
_BESIDE = frozenset({"alpha", "dora_scale", "rescale", "reshape_weight"})
_KINDS = {
    **dict.fromkeys(_FACTOR, "factor"),
    **dict.fromkeys(_WHOLE, "whole"),
    **dict.fromkeys(_BESIDE, "beside"),
}
_LONGEST_SUFFIX_PARTS = 3


def split_key(key: str) -> tuple[str, str]:
    """(module, kind) of a file key. `factor`s multiply, a `whole` stands for itself, what lies `beside` changes nothing
    alone, and `other` is a form that we do not know."""
    for separator in ("_lora.up.weight", "_lora.down.weight"):
        if key.endswith(separator):
            return key[: -len(separator)], "factor"
    found = (key, "other")
    at = len(key)
    for _ in range(_LONGEST_SUFFIX_PARTS):
        at = key.rfind(".", 0, at)
        if at <= 0:
            break
        kind = _KINDS.get(key[at + 1 :])
        if kind is not None:
            found = (key[:at], kind)
    return found


def modules_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Module -> its keys, in file order, for every module that holds more than side values."""
    keys: dict[str, list[str]] = {}
    substantial: set[str] = set()
    for key in tensors:
        module, kind = split_key(key)
        keys.setdefault(module, []).append(key)
        if kind != "beside":
            substantial.add(module)
    return {module: names for module, names in keys.items() if module in substantial}


def update_norms(tensors: Mapping[str, torch.Tensor], modules: Mapping[str, list[str]]) -> dict[str, float]:
    """Module -> estimated Frobenius norm of the update that the file makes to it at strength 1.

    An estimate for a percentage in a report: the norm of a product is taken as the product of the factors' norms over
    the square root of the rank (exact for factors without a common direction), that of an element-wise product as the
    product of both over the square root of its elements, and a factor's norm comes from at most `SAMPLE_ELEMENTS`
    evenly spaced elements. Exact norms would read every byte of the file again.
    """
    return {module: _update_norm(tensors, module, keys) for module, keys in modules.items()}


def _update_norm(tensors: Mapping[str, torch.Tensor], module: str, keys: list[str]) -> float:
    factors = [tensors[key] for key in keys if split_key(key)[1] == "factor"]
    whole = [tensors[key] for key in keys if split_key(key)[1] in ("whole", "other")]
    total = math.fsum(_norm(tensor) for tensor in whole)
    if factors:
        rank = max(1, min(min(factor.shape[:2]) for factor in factors if factor.ndim)) if _ranked(factors) else 1
        scale = _alpha(tensors, module, rank) / rank
        total += abs(scale) * math.prod(_norm(factor) for factor in factors) / _shrinkage(tensors, keys, rank)
    return total


def _shrinkage(tensors: Mapping[str, torch.Tensor], keys: list[str], rank: int) -> float:
    """What the norm of a product lacks of the product of its factors' norms."""
    hada = {key[key.rfind(".") + 1 :]: tensors[key] for key in keys if ".hada_" in key}
    if not hada:
        return math.sqrt(rank)
    # Two products, each summed over the rank (twice with a Tucker core), multiplied element by element.
    core = hada.get("hada_t1")
    kernel = 1 if core is None else math.prod(core.shape[2:])
    sides = math.prod(hada[side].numel() / rank for side in ("hada_w1_a", "hada_w1_b") if side in hada)
    return math.sqrt(max(1.0, sides * kernel)) * (rank if core is None else rank**2)


def _ranked(factors: list[torch.Tensor]) -> bool:
    return all(factor.ndim >= 2 for factor in factors)


def _alpha(tensors: Mapping[str, torch.Tensor], module: str, rank: int) -> float:
    alpha = tensors.get(f"{module}.alpha")
    return float(rank) if alpha is None or alpha.numel() != 1 else float(alpha.item())


def _norm(tensor: torch.Tensor) -> float:
    if tensor.numel() == 0:
        return 0.0
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, tensor.numel() // SAMPLE_ELEMENTS)].to(torch.float32)
    return float(sample.square().mean().sqrt()) * math.sqrt(tensor.numel())
