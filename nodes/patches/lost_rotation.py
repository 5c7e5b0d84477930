"""Rotations of weights (OFT, BOFT) that the host takes and then cannot add."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

_BLOCKS = {"oft": (1, 2, 2), "boft": (1, 1, 2, 2)}
"""The host's name of the kind -> the shape of the smallest rotation."""


def lost_rotation(model: Any, patches: Iterable[object]) -> str:
    """The kind of a rotation among `patches` that leaves the weights of `model` as they are; "" without one.

    Under dynamic VRAM the host adds patches in the precision that the model computes in. Its rotations mix that with
    float32 there (0.33), and it logs the error weight by weight. Tried on a weight of our own: another version may do
    better. A host that does not tell its precision is believed."""
    told = getattr(model.model, "get_dtype_inference", None)
    if told is None or not getattr(model, "is_dynamic", bool)():
        return ""
    kinds = {name: type(patch) for patch in patches if (name := getattr(patch, "name", "")) in _BLOCKS}
    return next((name for name, adapter in kinds.items() if not _turns(adapter, _BLOCKS[name], told())), "")


def _turns(adapter: Any, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    blocks = torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=dtype).expand(shape)
    weight = torch.eye(2, dtype=dtype)
    try:
        turned = adapter(set(), (blocks, None, 0.0, None)).calculate_weight(
            weight.clone(), "a weight of WarmStack's, to try", 1.0, 1.0, None, lambda delta: delta, dtype, None
        )
    except Exception:
        # Made for another form: a report is not worth a job.
        return True
    return not torch.equal(turned, weight)
