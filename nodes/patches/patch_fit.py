"""Whether a patch that is no plain LoRA can change a weight of a given shape, told from its kind and its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from ...lora.fusing.fuse import PlainLora

Shape: TypeAlias = Sequence[int]


def may_fit(value: Any, shape: Shape) -> bool:
    """False when the host would leave a weight of `shape` as it is: it logs the error and goes on. A patch of a kind or
    a form that we do not know is taken to fit."""
    kind = value[0] if isinstance(value, tuple) and value else getattr(value, "name", None)
    judge = _JUDGES.get(kind) if isinstance(kind, str) else None
    try:
        return judge is None or judge(value[1] if isinstance(value, tuple) else value.weights, shape)
    except (AttributeError, IndexError, TypeError, ValueError):
        # Another version of the host may keep the tensors in another order. A report is not worth a job.
        return True


def _diff(weights: Any, shape: Shape) -> bool:
    diff, *flags = weights
    # With a flag the host pads the weight first.
    return bool(flags) or tuple(diff.shape) == tuple(shape)


def _lora(weights: Any, shape: Shape) -> bool:
    up, down, _, mid, _, reshape = weights
    # The host takes the product in any form of as many elements.
    rows, columns = PlainLora(up, down, 1.0, mid).delta_shape
    return not down.shape[0] or (rows >= 0 and rows * columns == math.prod(reshape or shape))


def _loha(weights: Any, shape: Shape) -> bool:
    a, b, _, _, _, core, *_ = weights
    return _product(a, b, core) == math.prod(shape)


def _lokr(weights: Any, shape: Shape) -> bool:
    first, second, _, first_a, first_b, second_a, second_b, core, *_ = weights
    return _factor(first, first_a, first_b) * _factor(second, second_a, second_b, core) == math.prod(shape)


def _oft(weights: Any, shape: Shape) -> bool:
    # BOFT has one dimension more, of turns after each other.
    blocks, size = weights[0].shape[-3:-1]
    return bool(blocks * size == shape[0])


def _factor(whole: torch.Tensor | None, a: Any, b: Any, core: Any = None) -> int:
    return _product(a, b, core) if whole is None else whole.numel()


def _product(a: torch.Tensor, b: torch.Tensor, core: torch.Tensor | None) -> int:
    """Elements of `a @ b`, or of the convolution that a Tucker core makes of them."""
    if core is None:
        return a.shape[0] * b.shape[1]
    return a.shape[1] * b.shape[1] * math.prod(core.shape[2:])


_JUDGES: Mapping[str, Callable[[Any, Shape], bool]] = {
    "diff": _diff, "lora": _lora, "loha": _loha, "lokr": _lokr, "oft": _oft, "boft": _oft,
}  # fmt: skip
"""By the name that the host gives the kind."""
