"""GGUF files made by hand from the format's definition, so that they can lie in every field."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

U16, U32, STRING, ARRAY, I32 = 2, 4, 8, 9, 5


@dataclass(frozen=True)
class RawTensor:
    """A tensor as it stands in the header. `dims` has the row length first."""

    name: str
    dims: Sequence[int]
    code: int
    offset: int


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(item_type: int, items: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", item_type, len(items)) + b"".join(items)


def original_shape(key: str, shape: Iterable[int]) -> bytes:
    items = [struct.pack("<i", size) for size in shape]
    return pair(f"comfy.gguf.orig_shape.{key}", ARRAY, array(I32, items))


def gguf_bytes(
    tensors: Sequence[RawTensor] = (),
    pairs: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    key_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    head = magic + struct.pack("<I", version)
    head += struct.pack("<Q", len(tensors) if tensor_count is None else tensor_count)
    head += struct.pack("<Q", len(pairs) if key_count is None else key_count)
    head += b"".join(pairs)
    for tensor in tensors:
        head += text(tensor.name) + struct.pack("<I", len(tensor.dims))
        head += b"".join(struct.pack("<Q", size) for size in tensor.dims)
        head += struct.pack("<IQ", tensor.code, tensor.offset)
    return head + bytes(-len(head) % alignment) + data
