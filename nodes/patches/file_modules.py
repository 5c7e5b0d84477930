"""The modules that a LoRA file changes, and about how much it changes each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

SAMPLE_ELEMENTS = 4096

_SPELLINGS = {
    "up": ("lora_up", "lora_B", "lora.up", "lora_linear_layer.up"),
    "down": ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down"),
    "mid": ("lora_mid",),
}
_PRODUCTS: tuple[frozenset[str], ...] = (
    frozenset({"up", "down", "mid"}),
    frozenset({"hada_w1_a", "hada_w1_b", "hada_t1"}),
    frozenset({"hada_w2_a", "hada_w2_b", "hada_t2"}),
    frozenset({"lokr_w1", "lokr_w1_a", "lokr_w1_b"}),
    frozenset({"lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)
"""Parts that are contracted with each other over a rank."""
_RANKED = frozenset({"down", "hada_w1_b", "hada_w2_b", "lokr_w1_b", "lokr_w2_b"})
"""Their first dimension is that rank."""
_RELATIVE = frozenset({"dora_scale", "oft_blocks", "set_weight", "a1.weight", "a2.weight", "b1.weight", "b2.weight"})
"""What they change depends on the weight (DoRA, OFT, GLoRA)."""
_BESIDE = frozenset({"alpha", "dora_scale", "rescale", "reshape_weight"})
"""What changes nothing alone."""
_OTHER = "other"
_PARTS = {
    **{
        f"{spelling}{tail}": part
        for part, spellings in _SPELLINGS.items()
        for spelling in spellings
        for tail in ("", ".weight", ".default.weight")
    },
    **{part: part for part in (*_RELATIVE, *_BESIDE, *frozenset().union(*_PRODUCTS[1:]))},
    **{part: part for part in ("diff", "diff_b", "w_norm", "b_norm", "lora_B.bias")},
}
_LONGEST_SUFFIX_PARTS = 3


def split_key(key: str) -> tuple[str, str]:
    """(module, part) of a file key, the part by one name in every spelling; a key of a form that we do not know is a
    module of its own."""
    for side in ("up", "down"):
        if key.endswith(f"_lora.{side}.weight"):
            return key.removesuffix(f"_lora.{side}.weight"), side
    found = (key, _OTHER)
    at = len(key)
    for _ in range(_LONGEST_SUFFIX_PARTS):
        at = key.rfind(".", 0, at)
        if at <= 0:
            break
        part = _PARTS.get(key[at + 1 :])
        if part is not None:
            found = (key[:at], part)
    return found


def modules_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Module -> its keys, in file order, for every module that holds more than side values."""
    keys: dict[str, list[str]] = {}
    substantial: set[str] = set()
    for key in tensors:
        module, part = split_key(key)
        keys.setdefault(module, []).append(key)
        if part not in _BESIDE:
            substantial.add(module)
    return {module: names for module, names in keys.items() if module in substantial}


def update_norms(tensors: Mapping[str, torch.Tensor], modules: Mapping[str, list[str]]) -> dict[str, float]:
    """Module -> estimated Frobenius norm of the update that the file makes to it at strength 1; NaN where that depends
    on the weight.

    An estimate for a percentage in a report: the norm of a product is taken as the product of the factors' norms over
    the square root of the rank (exact for factors without a common direction), that of an element-wise product as the
    product of both over the square root of its elements, and a factor's norm comes from at most `SAMPLE_ELEMENTS`
    evenly spaced elements. Exact norms would read every byte of the file again.
    """
    return {module: _update_norm({split_key(key)[1]: tensors[key] for key in keys}) for module, keys in modules.items()}


def _update_norm(parts: Mapping[str, torch.Tensor]) -> float:
    if not _RELATIVE.isdisjoint(parts):
        return math.nan
    products = [{part: parts[part] for part in product & parts.keys()} for product in _PRODUCTS]
    factors = frozenset().union(*products)
    whole = math.fsum(_norm(tensor) for part, tensor in parts.items() if part not in _BESIDE | factors)
    if not factors:
        return whole
    ranks = [rank for rank in map(_rank, products) if rank]
    scale = _alpha(parts, ranks[-1]) / ranks[-1] if ranks else 1.0
    norm = math.prod(_product_norm(product) for product in products if product)
    return whole + abs(scale) * norm / math.sqrt(_elements(parts))


def _product_norm(product: Mapping[str, torch.Tensor]) -> float:
    contractions = len(product) - 1
    return math.prod(map(_norm, product.values())) / math.sqrt(_rank(product) or 1) ** contractions


def _rank(product: Mapping[str, torch.Tensor]) -> int:
    """0 where nothing is summed over one."""
    return next((tensor.shape[0] for part, tensor in product.items() if part in _RANKED and tensor.ndim), 0)


def _elements(parts: Mapping[str, torch.Tensor]) -> float:
    """Elements of the weight where two products are multiplied element by element, else 1."""
    a, b, core = (parts.get(f"hada_{part}") for part in ("w1_a", "w1_b", "t1"))
    if a is None or b is None or not b.numel():
        return 1.0
    kernel = 1 if core is None else math.prod(core.shape[2:])
    return max(1.0, a.numel() * b.numel() / b.shape[0] ** 2 * kernel)


def _alpha(parts: Mapping[str, torch.Tensor], rank: int) -> float:
    alpha = parts.get("alpha")
    return float(rank) if alpha is None or alpha.numel() != 1 else float(alpha.item())


def _norm(tensor: torch.Tensor) -> float:
    if tensor.numel() == 0:
        return 0.0
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, tensor.numel() // SAMPLE_ELEMENTS)].to(torch.float32)
    return float(sample.square().mean().sqrt()) * math.sqrt(tensor.numel())
