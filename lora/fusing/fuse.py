"""Adding a stack of plain LoRAs to a weight for about the cost of one: ranks concatenated, one GEMM, no dense delta.

sum_i s_i up_i @ down_i  =  [s_1 up_1 ... s_n up_n] @ [down_1; ...; down_n], exactly, for any mix of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .bf16_gemm import Bf16Gemm, bf16_gemm, parts_of

_LEAST_RANKS = 64
"""Below, splitting the factors costs more than float32 products do."""
_JOINED_RANKS = 160
"""Up to as many ranks one product of three times the length is faster than three."""


@dataclass(frozen=True, slots=True, eq=False)
class PlainLora:
    """delta = scale * up @ down, in the shape of the weight (out_features, in_features[, *kernel]).

    up: (out_features, rank[, 1...]); down: (rank, in_features[, *kernel]); mid, for Tucker: (rank, rank, *kernel) with
    down: (rank, in_features[, 1...]). Any float dtype and device. `scale` = strength * alpha / rank, whatever rule it
    came from; it is applied in fp32, never folded into a half-precision factor.
    """

    up: Tensor
    down: Tensor
    scale: float
    mid: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def delta_shape(self) -> tuple[int, int]:
        """(out_features, in_features * kernel elements), or (-1, -1) when the factors do not fit each other."""
        rank, up, mid = self.rank, self.up.shape, self.mid
        if len(up) < 2 or self.down.ndim < 2 or rank == 0 or math.prod(up[1:]) != rank:
            return -1, -1
        if mid is None:
            return up[0], math.prod(self.down.shape[1:])
        if mid.ndim < 3 or mid.shape[:2] != (rank, rank):
            return -1, -1
        return up[0], math.prod(self.down.shape[1:]) * math.prod(mid.shape[2:])


def fits(lora: PlainLora, shape: Sequence[int]) -> bool:
    """Whether `lora` updates a weight of `shape`: (out_features, in_features[, *kernel])."""
    return len(shape) >= 2 and lora.delta_shape == (shape[0], math.prod(shape[1:]))


def add_fused_(weight: Tensor, loras: Sequence[PlainLora]) -> Tensor:
    """weight += sum of all deltas, in place; returns `weight`, which may be a view such as the q rows of a fused qkv.

    fp32 (and fp64) weights take the GEMM directly. Others are summed in fp32 and rounded once. Raises ValueError, with
    `weight` untouched, when a LoRA does not fit.
    """
    for lora in loras:
        if not fits(lora, weight.shape):
            raise ValueError(f"a LoRA for {lora.delta_shape} does not fit a weight of {tuple(weight.shape)}")
    if not loras:
        return weight
    loras = once_each(loras)
    matrix = _matrix_view(weight)
    if matrix is not None:
        return _add_into(matrix, loras, weight)
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    total = torch.empty(weight.shape, dtype=dtype, device=weight.device).copy_(weight)
    _add_into(total.flatten(1), loras, total)
    return weight.copy_(total)


def once_each(loras: Iterable[PlainLora]) -> Sequence[PlainLora]:
    """One file's rows as one: side by side, 1 and -0.9 of it would cancel only after each was rounded."""
    found: dict[tuple[int, int, int], PlainLora] = {}
    for lora in loras:
        factors = id(lora.up), id(lora.down), id(lora.mid)
        same = found.get(factors)
        found[factors] = lora if same is None else replace(same, scale=same.scale + lora.scale)
    return tuple(found.values())


def _add_into(matrix: Tensor, loras: Sequence[PlainLora], weight: Tensor) -> Tensor:
    gemm = bf16_gemm() if _suits_bf16_gemm(matrix, loras) else None
    if gemm is not None:
        add_bf16_factors_(matrix, loras, gemm)
        return weight
    scales = [lora.scale for lora in loras]
    up, down = _factors(loras, matrix)
    alpha = 1.0
    if all(scale == scales[0] for scale in scales):
        # As that of a tensor: a number that float32 cannot hold would raise, and is an infinity to the host.
        alpha = torch.tensor(scales[0], dtype=matrix.dtype, device="cpu").item()
    else:
        _fold(up, down, [scale for lora in loras for scale in [lora.scale] * lora.rank])
    matrix.addmm_(up, down, alpha=alpha)
    return weight


def add_bf16_factors_(matrix: Tensor, loras: Sequence[PlainLora], gemm: Bf16Gemm) -> None:
    """`matrix` (float32, rows contiguous) += all deltas of factors that are bfloat16 in their files, as exact as in
    float32: the smaller factor takes the scales in float32 and goes in three bfloat16 parts, the other as it is."""
    up, down = _joined([lora.up.flatten(1) for lora in loras], 1), _joined([lora.down.flatten(1) for lora in loras], 0)
    # Both said: with other defaults in the process scales would be rounded, or elsewhere.
    scales = torch.tensor(
        [scale for lora in loras for scale in [lora.scale] * lora.rank], dtype=torch.float32, device="cpu"
    )
    scales_up = up.shape[0] <= down.shape[1]
    parts = parts_of(up * scales if scales_up else down * scales[:, None])
    if len(scales) > _JOINED_RANKS:
        for part in parts:
            gemm(matrix, *((part, down) if scales_up else (up, part)))
        return
    # Reading and writing the weight three times would cost more than to copy small factors.
    ups, downs = (parts, [down] * 3) if scales_up else ([up] * 3, parts)
    gemm(matrix, torch.cat(ups, 1), torch.cat(downs))


def _suits_bf16_gemm(matrix: Tensor, loras: Sequence[PlainLora]) -> bool:
    return (
        matrix.device.type == "cpu"
        and matrix.dtype == torch.float32
        and matrix.stride(1) == 1
        and (matrix.shape[0] == 1 or matrix.stride(0) >= matrix.shape[1])
        and sum(lora.rank for lora in loras) >= _LEAST_RANKS
        and all(lora.mid is None for lora in loras)
        and all(t.dtype == torch.bfloat16 and t.device.type == "cpu" for lora in loras for t in (lora.up, lora.down))
    )


def _joined(factors: Sequence[Tensor], axis: int) -> Tensor:
    return torch.cat(list(factors), axis) if len(factors) > 1 else factors[0].contiguous()


def _factors(loras: Sequence[PlainLora], like: Tensor) -> tuple[Tensor, Tensor]:
    """Every up side by side (out, ranks) and every down on top of each other (ranks, in), in the dtype of `like`."""
    if len(loras) == 1:
        return _cast(loras[0].up.flatten(1), like), down_matrix(loras[0], like)
    ranks = sum(lora.rank for lora in loras)
    up = like.new_empty((like.shape[0], ranks))
    down = like.new_empty((ranks, like.shape[1]))
    start = 0
    for lora in loras:
        end = start + lora.rank
        up[:, start:end].copy_(_moved(lora.up.flatten(1), like))
        down[start:end].copy_(_moved(lora.down.flatten(1), like) if lora.mid is None else down_matrix(lora, like))
        start = end
    return up, down


def _fold(up: Tensor, down: Tensor, scales: Sequence[float]) -> None:
    """Scales each rank once, on the smaller factor."""
    per_rank = torch.tensor(scales, dtype=up.dtype, device=up.device)
    if up.shape[0] <= down.shape[1]:
        up.mul_(per_rank)
    else:
        down.mul_(per_rank[:, None])


def down_matrix(lora: PlainLora, like: Tensor) -> Tensor:
    """(rank, in * kernel elements), in the dtype of `like` and where it is. Tucker: with the middle contracted."""
    down = _cast(lora.down.flatten(1), like)
    if lora.mid is None:
        return down
    mid = _cast(lora.mid, like)
    # Only the product that is added in place is out of autocast's reach by itself. Not every device has autocast.
    kind = down.device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        # (rank_out, rank_in, kernel) x (rank_in, in) -> (rank_out, in, kernel)
        return torch.einsum("oik,if->ofk", mid.flatten(2), down).flatten(1)


def _cast(factor: Tensor, like: Tensor) -> Tensor:
    return _moved(factor, like).to(like.dtype)


def _moved(factor: Tensor, like: Tensor) -> Tensor:
    """On the device of `like`, still in its own (smaller) dtype: the cast happens where the GEMM does."""
    return factor.to(like.device)


def _matrix_view(weight: Tensor) -> Tensor | None:
    """(out, everything else) over the same memory; None when the layout or the dtype does not allow one."""
    if weight.dtype not in (torch.float32, torch.float64):
        return None
    try:
        return weight.view(weight.shape[0], -1)
    except RuntimeError:
        return None
