"""bfloat16 products on CPUs with matrix tiles (AMX): six times as fast as float32 ones, and summed in float32 too.

torch's own bfloat16 products round what they return, and its switch for float32 products that are computed in bfloat16
holds for the whole process. Its math library has the product that is wanted here, and torch exports it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Bf16Gemm = Callable[[Tensor, Tensor, Tensor], None]
"""`gemm(c, a, b)`: c += a @ b, with c (m, n) float32, a (m, k) and b (k, n) bfloat16, rows contiguous, on the CPU. The
products are exact and summed in float32."""

_ROW_MAJOR, _AS_IT_IS = 101, 111


@cache
def bf16_gemm() -> Bf16Gemm | None:
    """None where this CPU has no tiles, or torch was built with another math library."""
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if not has_tiles():
        return None
    try:
        library = ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so"))
        cblas_gemm = library.cblas_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    cblas_gemm.restype = None
    number, scale, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    cblas_gemm.argtypes = [number] * 6 + [scale, pointer, number, pointer, number, scale, pointer, number]

    def gemm(c: Tensor, a: Tensor, b: Tensor) -> None:
        cblas_gemm(
            _ROW_MAJOR, _AS_IT_IS, _AS_IT_IS, *c.shape, a.shape[1],
            1.0, a.data_ptr(), _row_step(a), b.data_ptr(), _row_step(b),
            1.0, c.data_ptr(), _row_step(c),
        )  # fmt: skip

    return gemm


def _row_step(matrix: Tensor) -> int:
    """From row to row. With one row torch may say anything, and the library refuses what is shorter than a row: it
    prints a line and adds nothing."""
    return max(matrix.stride(0), matrix.shape[1], 1)


def parts_of(factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three bfloat16 tensors whose sum is `factor` (float32) to its last bit: 24 bits are three times 8."""
    first = factor.bfloat16()
    left = factor - first
    second = left.bfloat16()
    return first, second, left.sub_(second).bfloat16()
