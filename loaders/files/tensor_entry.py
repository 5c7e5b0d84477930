"""TensorEntry: one tensor as a header describes it, and the bytes that takes. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import SafetensorsValidationError, damaged

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip

MAX_DIMENSIONS = 64
"""numpy's bound. Neither safetensors nor torch has one, so that a shape of 100,000 would get as far as a kernel."""


class TensorEntry(NamedTuple):
    """One tensor of the file: `start` and `end` are byte offsets in the data section."""

    dtype: str
    """As written in the header: `F16`, `F8_E4M3`, ..."""
    shape: tuple[int, ...]
    start: int
    end: int

    def moved(self, by_bytes: int) -> TensorEntry:
        return self._replace(start=self.start + by_bytes, end=self.end + by_bytes)


def stored_bytes(path: str, key: str, dtype: str, shape: tuple[int, ...]) -> int:
    if dtype not in DTYPE_BITS:
        reason = f"unknown dtype {str(dtype)[:40]!r}; convert the file to a known one, or download it again"
        raise SafetensorsValidationError(path, reason, key)
    if len(shape) > MAX_DIMENSIONS:
        raise damaged(path, f"is said to have {len(shape)} dimensions, more than {MAX_DIMENSIONS}", key)
    if any(dim < 0 for dim in shape):
        raise damaged(path, f"{list(shape)[:8]} has a negative dimension", key)
    # Zeros left out: dimensions beyond 2**63 break strides even in a tensor without elements.
    if math.prod(dim for dim in shape if dim) * DTYPE_BITS[dtype] >= 1 << 63:
        raise damaged(path, f"{dtype} {list(shape)[:8]} overflows", key)
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise damaged(path, f"{dtype} {list(shape)[:8]} does not end at a byte", key)
    return bits // 8
