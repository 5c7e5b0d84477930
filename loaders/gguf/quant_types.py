"""The tensor types of GGUF: how many elements a block holds, in how many bytes. Needs neither numpy nor torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class GgufType(NamedTuple):
    """One tensor type. A row is a whole number of blocks; a plain type has blocks of one element."""

    name: str
    code: int
    """As written in the file."""
    block_elements: int
    block_bytes: int

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a packed tensor of `shape`, whose row length must be a multiple of `block_elements`."""
        return math.prod(shape) // self.block_elements * self.block_bytes

    @property
    def plain(self) -> bool:
        return self.block_elements == 1


GGUF_TYPES: Mapping[str, GgufType] = {
    name: GgufType(name, code, elements, nbytes)
    for name, code, elements, nbytes in (
        ("F32", 0, 1, 4), ("F16", 1, 1, 2), ("BF16", 30, 1, 2), ("F64", 28, 1, 8),
        ("I8", 24, 1, 1), ("I16", 25, 1, 2), ("I32", 26, 1, 4), ("I64", 27, 1, 8),
        ("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20), ("Q5_0", 6, 32, 22), ("Q5_1", 7, 32, 24),
        ("Q8_0", 8, 32, 34), ("Q8_1", 9, 32, 40),
        ("Q2_K", 10, 256, 84), ("Q3_K", 11, 256, 110), ("Q4_K", 12, 256, 144), ("Q5_K", 13, 256, 176),
        ("Q6_K", 14, 256, 210), ("Q8_K", 15, 256, 292),
        ("IQ1_S", 19, 256, 50), ("IQ1_M", 29, 256, 56), ("IQ2_XXS", 16, 256, 66), ("IQ2_XS", 17, 256, 74),
        ("IQ2_S", 22, 256, 82), ("IQ3_XXS", 18, 256, 98), ("IQ3_S", 21, 256, 110), ("IQ4_NL", 20, 32, 18),
        ("IQ4_XS", 23, 256, 136),
        ("TQ1_0", 34, 256, 54), ("TQ2_0", 35, 256, 66), ("MXFP4", 39, 32, 17), ("NVFP4", 40, 64, 36),
        ("Q1_0", 41, 128, 18),
    )
}  # fmt: skip
