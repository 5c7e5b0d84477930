"""Dequantising on the CPU: chunks of blocks over a few threads into one array that is allocated once."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..cancelling import Cancelled, never
from ..errors import LoadCancelledError, SafetensorsLoadError
from .chunks import chunk_spans, drain
from .codebooks import Codebook
from .kernels import KERNELS
from .quant_types import GGUF_TYPES, GgufType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_PLAIN = ("F32", "F16", "BF16")


def refusal(kind: GgufType) -> str:
    """Why tensors of this type stay packed, or "" when they can be dequantised."""
    if kind.name in KERNELS or kind.name in _PLAIN:
        return ""
    return f"nothing dequantises {kind.name}; convert the file to a type like Q8_0"


def dequantise(
    packed: Any,
    kind: GgufType | str,
    shape: Sequence[int],
    dtype: DTypeLike = np.float32,
    *,
    threads: int = 1,
    cancelled: Cancelled | None = None,
    name: str = "",
) -> NDArray[Any]:
    """`packed`, any buffer that holds exactly a tensor of `kind` and `shape`, as `dtype` (float32 or float16).

    The same for any number of threads. Raises SafetensorsLoadError for a type that has no numbers to give,
    LoadCancelledError between two chunks; `name` is for these only. ValueError when the bytes are not `shape`."""
    cancelled = cancelled or never
    kind = GGUF_TYPES[kind] if isinstance(kind, str) else kind
    blocks = as_blocks(packed, kind, shape)
    if reason := refusal(kind):
        raise SafetensorsLoadError(name, reason)
    values = np.empty((len(blocks), kind.block_elements), dtype)

    def convert(span: tuple[int, int]) -> None:
        if cancelled():
            raise LoadCancelledError(name, "cancelled while it was being dequantised")
        write_values(blocks[slice(*span)], kind, values[slice(*span)])

    drain(chunk_spans(len(blocks), kind), convert, threads)
    return values.reshape(tuple(shape))


def as_blocks(packed: Any, kind: GgufType, shape: Sequence[int]) -> Bytes:
    """(blocks, block_bytes) view of the bytes of a tensor."""
    raw = np.frombuffer(packed, np.uint8) if not isinstance(packed, np.ndarray) else packed.reshape(-1).view(np.uint8)
    if math.prod(shape) % kind.block_elements or raw.size != kind.nbytes(shape):
        raise ValueError(f"{raw.size} bytes are no {kind.name} of shape {tuple(shape)}")
    return raw.reshape(-1, kind.block_bytes)


def write_values(blocks: Bytes, kind: GgufType, out: NDArray[Any]) -> None:
    """The values of `blocks` into `out`, (blocks, block_elements) of any float dtype."""
    # Files may hold infinite and undefined scales; numpy's warnings about them would be raised from some thread.
    with np.errstate(all="ignore"):
        if kind.name in _PLAIN:
            np.copyto(out, _plain_values(blocks, kind), casting="same_kind")
        elif out.dtype == np.float32:
            _write_floats(blocks, kind, out)
        else:
            scratch = np.empty(out.shape, np.float32)
            _write_floats(blocks, kind, scratch)
            np.copyto(out, scratch, casting="same_kind")


def _write_floats(blocks: Bytes, kind: GgufType, out: Floats) -> None:
    unpacked = KERNELS[kind.name](_NumpyArrays(), blocks)
    grouped = out.reshape(unpacked.quants.shape)
    np.copyto(grouped, unpacked.quants)
    grouped *= unpacked.scale
    if unpacked.plus is not None:
        grouped += unpacked.plus
    if unpacked.minus is not None:
        grouped -= unpacked.minus


def _plain_values(blocks: Bytes, kind: GgufType) -> NDArray[Any]:
    if kind.name == "BF16":
        return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(blocks).view("<f4" if kind.name == "F32" else "<f2")


class _NumpyArrays:
    """`Arrays` of numpy."""

    def halves(self, raw: Bytes) -> Floats:
        return np.ascontiguousarray(raw).view("<f2").astype(np.float32)

    def signed(self, raw: Bytes) -> NDArray[np.int8]:
        return raw.view(np.int8)

    def join(self, parts: Sequence[Bytes], axis: int) -> Bytes:
        return np.concatenate(parts, axis)

    def lookup(self, codebook: Codebook, low: Bytes, high: Bytes | None = None) -> NDArray[Any]:
        dtype = np.dtype(codebook.kind).newbyteorder("<" if sys.byteorder == "big" else "=")
        table = np.frombuffer(codebook.values, dtype)
        index = low if high is None else low | high.astype(np.uint16) << 8
        return np.take(table if codebook.width == 1 else table.reshape(-1, codebook.width), index, axis=0)
