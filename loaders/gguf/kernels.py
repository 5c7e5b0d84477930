"""How the blocks of each GGUF type are put together, for numpy and torch alike.

Every type is small whole numbers times a scale, and for some an offset. A kernel unpacks those in 8-bit arithmetic,
which both libraries do the same; `on_numpy` and `on_torch` multiply and add. `n` is the number of blocks, and
`blocks` are (n, block_bytes) unsigned bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from . import codebooks
from .codebooks import Codebook

Array = Any
"""numpy.ndarray or torch.Tensor: the operators used here mean the same for both."""


class Arrays(Protocol):
    """What numpy and torch call differently."""

    def halves(self, raw: Array) -> Array:
        """(n, 2k) bytes, as (n, k) float32 read from float16."""

    def signed(self, raw: Array) -> Array:
        """The same bytes as int8."""

    def join(self, parts: Sequence[Array], axis: int) -> Array: ...

    def lookup(self, codebook: Codebook, low: Array, high: Array | None = None) -> Array:
        """Row `low + 256 * high` of `codebook` for each index; rows of more than one number add an axis."""


class Unpacked(NamedTuple):
    """values = quants * scale (+ plus) (- minus). Which of the two an offset is matters for the sign of a NaN."""

    quants: Array
    """(n, groups, size) int8."""
    scale: Array
    """(n, groups, 1) float32, like the offsets."""
    plus: Array | None = None
    minus: Array | None = None


Kernel = Callable[[Arrays, Array], Unpacked]


def q4_0(xp: Arrays, blocks: Array) -> Unpacked:
    quants = xp.signed(_planes(xp, blocks[:, 2:], 16, 4).reshape(-1, 1, 32))
    quants -= 8
    return Unpacked(quants, xp.halves(blocks[:, :2])[:, :, None])


def q4_1(xp: Arrays, blocks: Array) -> Unpacked:
    pair = xp.halves(blocks[:, :4])[:, :, None]
    quants = _planes(xp, blocks[:, 4:], 16, 4).reshape(-1, 1, 32)
    return Unpacked(xp.signed(quants), pair[:, :1], plus=pair[:, 1:])


def q5_0(xp: Arrays, blocks: Array) -> Unpacked:
    quants = xp.signed(_five_bits(xp, blocks[:, 2:]))
    quants -= 16
    return Unpacked(quants, xp.halves(blocks[:, :2])[:, :, None])


def q5_1(xp: Arrays, blocks: Array) -> Unpacked:
    pair = xp.halves(blocks[:, :4])[:, :, None]
    return Unpacked(xp.signed(_five_bits(xp, blocks[:, 4:])), pair[:, :1], plus=pair[:, 1:])


def q8_0(xp: Arrays, blocks: Array) -> Unpacked:
    return Unpacked(xp.signed(blocks)[:, None, 2:], xp.halves(blocks[:, :2])[:, :, None])


def q2_k(xp: Arrays, blocks: Array) -> Unpacked:
    scales, pair = blocks[:, :16], xp.halves(blocks[:, 80:])
    quants = _planes(xp, blocks[:, 16:80], 32, 2).reshape(-1, 16, 16)
    scale, minimum = pair[:, :1] * (scales & 15), pair[:, 1:] * (scales >> 4)
    return Unpacked(xp.signed(quants), scale[:, :, None], minus=minimum[:, :, None])


def q3_k(xp: Arrays, blocks: Array) -> Unpacked:
    low_scales = _planes(xp, blocks[:, 96:104], 8, 4).reshape(-1, 16)
    high_scales = _planes(xp, blocks[:, 104:108], 4, 2).reshape(-1, 16)
    scales = xp.signed(low_scales | high_scales << 4) - 32
    quants = _planes(xp, blocks[:, :32], 32, 1).reshape(-1, 8, 32)
    quants <<= 2
    quants |= _planes(xp, blocks[:, 32:96], 32, 2).reshape(-1, 8, 32)
    quants = xp.signed(quants)
    quants -= 4
    return Unpacked(quants.reshape(-1, 16, 16), (xp.halves(blocks[:, 108:]) * scales)[:, :, None])


def q4_k(xp: Arrays, blocks: Array) -> Unpacked:
    scale, minimum = _scale_and_minimum(xp, blocks)
    quants = _planes(xp, blocks[:, 16:], 32, 4).reshape(-1, 8, 32)
    return Unpacked(xp.signed(quants), scale, minus=minimum)


def q5_k(xp: Arrays, blocks: Array) -> Unpacked:
    scale, minimum = _scale_and_minimum(xp, blocks)
    quants = _planes(xp, blocks[:, 16:48], 32, 1).reshape(-1, 8, 32)
    quants <<= 4
    quants |= _planes(xp, blocks[:, 48:], 32, 4).reshape(-1, 8, 32)
    return Unpacked(xp.signed(quants), scale, minus=minimum)


def q6_k(xp: Arrays, blocks: Array) -> Unpacked:
    quants = _planes(xp, blocks[:, 128:192], 32, 2).reshape(-1, 8, 32)
    quants <<= 4
    quants |= _planes(xp, blocks[:, :128], 64, 4).reshape(-1, 8, 32)
    quants = xp.signed(quants)
    quants -= 32
    scale = xp.halves(blocks[:, 208:]) * xp.signed(blocks)[:, 192:208]
    return Unpacked(quants.reshape(-1, 16, 16), scale[:, :, None])


def iq4_nl(xp: Arrays, blocks: Array) -> Unpacked:
    codes = _planes(xp, blocks[:, 2:], 16, 4).reshape(-1, 1, 32)
    return Unpacked(xp.lookup(codebooks.IQ4_LEVELS, codes), xp.halves(blocks[:, :2])[:, :, None])


def iq4_xs(xp: Arrays, blocks: Array) -> Unpacked:
    scales = xp.signed(_fields(xp, blocks[:, 4:8], 4) | _fields(xp, blocks[:, 2:4], 2) << 4) - 32
    codes = _planes(xp, blocks[:, 8:], 16, 4).reshape(-1, 8, 32)
    return Unpacked(xp.lookup(codebooks.IQ4_LEVELS, codes), (xp.halves(blocks[:, :2]) * scales)[:, :, None])


def iq1_s(xp: Arrays, blocks: Array) -> Unpacked:
    low, high = blocks[:, 34::2], blocks[:, 35::2]
    grid = xp.lookup(codebooks.IQ1_EIGHTHS, blocks[:, 2:34].reshape(-1, 8, 4), _threes(xp, low, high))
    quants = grid.reshape(-1, 8, 32) + xp.signed(1 - 2 * (high >> 7))[:, :, None]
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), high >> 4 & 7, 0.125))


def iq1_m(xp: Arrays, blocks: Array) -> Unpacked:
    low, high = blocks[:, 48::2], blocks[:, 49::2]
    nibbles = (high[:, 0:1] >> 4 | high[:, 1:2] & 240, high[:, 2:3] >> 4 | high[:, 3:4] & 240)
    codes = _fields(xp, blocks[:, 32:48], 4)
    grid = xp.lookup(codebooks.IQ1_EIGHTHS, blocks[:, :32], codes & 7)
    quants = grid + xp.signed(1 - 2 * (codes >> 3))[:, :, None]
    scale = _odd_scale(xp.halves(xp.join(nibbles, 1)), _threes(xp, low, high).reshape(-1, 16), 0.125)
    return Unpacked(quants.reshape(-1, 16, 16), scale)


def iq2_xxs(xp: Arrays, blocks: Array) -> Unpacked:
    groups = blocks[:, 2:].reshape(-1, 8, 8)
    signs = xp.lookup(codebooks.EVEN_SIGNS, _sevens(xp, groups[:, :, 4:]))
    quants = (xp.lookup(codebooks.IQ2_XXS_GRID, groups[:, :, :4]) * signs).reshape(-1, 8, 32)
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), groups[:, :, 7] >> 4, 0.125))


def iq2_xs(xp: Arrays, blocks: Array) -> Unpacked:
    low, high = blocks[:, 2:66:2], blocks[:, 3:66:2]
    grid = xp.lookup(codebooks.IQ2_XS_GRID, low, high & 1)
    quants = (grid * xp.lookup(codebooks.EVEN_SIGNS, high >> 1)).reshape(-1, 16, 16)
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), _fields(xp, blocks[:, 66:], 4), 0.125))


def iq2_s(xp: Arrays, blocks: Array) -> Unpacked:
    grid = xp.lookup(codebooks.IQ2_S_GRID, blocks[:, 2:34], _fields(xp, blocks[:, 66:74], 2))
    quants = (grid * xp.lookup(codebooks.SIGNS, blocks[:, 34:66])).reshape(-1, 16, 16)
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), _fields(xp, blocks[:, 74:], 4), 0.125))


def iq3_xxs(xp: Arrays, blocks: Array) -> Unpacked:
    words = blocks[:, 66:].reshape(-1, 8, 4)
    grid = xp.lookup(codebooks.IQ3_XXS_GRID, blocks[:, 2:66]).reshape(-1, 8, 4, 8)
    quants = (grid * xp.lookup(codebooks.EVEN_SIGNS, _sevens(xp, words))).reshape(-1, 8, 32)
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), words[:, :, 3] >> 4, 0.25))


def iq3_s(xp: Arrays, blocks: Array) -> Unpacked:
    grid = xp.lookup(codebooks.IQ3_S_GRID, blocks[:, 2:66], _fields(xp, blocks[:, 66:74], 1))
    signs = xp.lookup(codebooks.SIGNS, blocks[:, 74:106])
    quants = (grid.reshape(-1, 32, 8) * signs).reshape(-1, 8, 32)
    return Unpacked(quants, _odd_scale(xp.halves(blocks[:, :2]), _fields(xp, blocks[:, 106:], 4), 1.0))


def tq1_0(xp: Arrays, blocks: Array) -> Unpacked:
    digits = [blocks[:, :32] * power for power in (1, 3, 9, 27, 81)]
    digits += [blocks[:, 32:48] * power for power in (1, 3, 9, 27, 81)]
    digits += [blocks[:, 48:52] * power for power in (1, 3, 9, 27)]
    quants = xp.lookup(codebooks.TERNARY, xp.join(digits, 1)[:, None])
    return Unpacked(quants, xp.halves(blocks[:, 52:])[:, :, None])


def tq2_0(xp: Arrays, blocks: Array) -> Unpacked:
    quants = xp.signed(_planes(xp, blocks[:, :64], 32, 2).reshape(-1, 1, 256))
    quants -= 1
    return Unpacked(quants, xp.halves(blocks[:, 64:])[:, :, None])


def mxfp4(xp: Arrays, blocks: Array) -> Unpacked:
    codes = _planes(xp, blocks[:, 1:], 16, 4).reshape(-1, 1, 32)
    return Unpacked(xp.lookup(codebooks.FP4_LEVELS, codes), xp.lookup(codebooks.E8M0_HALVES, blocks[:, :1])[:, :, None])


def nvfp4(xp: Arrays, blocks: Array) -> Unpacked:
    codes = _planes(xp, blocks[:, 4:], 8, 4).reshape(-1, 4, 16)
    return Unpacked(xp.lookup(codebooks.FP4_LEVELS, codes), xp.lookup(codebooks.E4M3_HALVES, blocks[:, :4])[:, :, None])


def _planes(xp: Arrays, raw: Array, width: int, bits: int) -> Array:
    """(n, k * width) bytes, as (n, k, 8 // bits, width): the lowest `bits` of `width` bytes, then the next ones."""
    groups = raw.reshape(len(raw), -1, 1, width)
    # Shifting by one number at a time is vectorised, by an array of numbers it is not: 8 times the time.
    return xp.join([_bits(groups, shift, bits) for shift in range(0, 8, bits)], 2)


def _fields(xp: Arrays, raw: Array, bits: int) -> Array:
    """(n, k) bytes, as (n, k * 8 // bits): the fields of one byte, low bits first, then those of the next."""
    column = raw[:, :, None]
    return xp.join([_bits(column, shift, bits) for shift in range(0, 8, bits)], 2).reshape(len(raw), -1)


def _bits(raw: Array, shift: int, bits: int) -> Array:
    shifted = raw >> shift if shift else raw
    return shifted & (1 << bits) - 1 if shift + bits < 8 else shifted


def _five_bits(xp: Arrays, raw: Array) -> Array:
    """Four bytes of high bits and 16 of low nibbles, as (n, 1, 32)."""
    quants = _fields(xp, raw[:, :4], 1)
    quants <<= 4
    quants |= _planes(xp, raw[:, 4:], 16, 4).reshape(-1, 32)
    return quants[:, None]


def _scale_and_minimum(xp: Arrays, blocks: Array) -> tuple[Array, Array]:
    """Eight scales and eight minima of 6 bits. The upper four of each lend their top bits from the lower four."""
    pair = xp.halves(blocks[:, :4])
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = xp.join((low & 63, high & 15 | low >> 2 & 48), 1)
    minima = xp.join((middle & 63, high >> 4 | middle >> 2 & 48), 1)
    return (pair[:, :1] * scales)[:, :, None], (pair[:, 1:] * minima)[:, :, None]


def _odd_scale(half: Array, codes: Array, unit: float) -> Array:
    """half * (2 * codes + 1) * unit. Exact in float32, so the order in which others multiply does not matter."""
    return (half * (2 * codes + 1) * unit)[:, :, None]


def _threes(xp: Arrays, low: Array, high: Array) -> Array:
    """(n, k) low and high bytes of 16-bit words, as (n, k, 4) fields of 3 bits from the lowest on."""
    fields = (low & 7, low >> 3 & 7, low >> 6 | (high & 1) << 2, high >> 1 & 7)
    return xp.join([field[:, :, None] for field in fields], 2)


def _sevens(xp: Arrays, words: Array) -> Array:
    """(n, k, 4) bytes of 32-bit words, as four fields of 7 bits from the lowest on."""
    one, two, three, four = (words[:, :, index : index + 1] for index in range(4))
    fields = (one & 127, one >> 7 | (two & 63) << 1, two >> 6 | (three & 31) << 2, three >> 5 | (four & 15) << 3)
    return xp.join(fields, 2)


KERNELS: Mapping[str, Kernel] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs,
    "IQ1_S": iq1_s, "IQ1_M": iq1_m, "IQ2_XXS": iq2_xxs, "IQ2_XS": iq2_xs, "IQ2_S": iq2_s,
    "IQ3_XXS": iq3_xxs, "IQ3_S": iq3_s, "TQ1_0": tq1_0, "TQ2_0": tq2_0, "MXFP4": mxfp4, "NVFP4": nvfp4,
}  # fmt: skip
"""By the name of the type."""
