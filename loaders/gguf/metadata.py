"""The metadata of a GGUF file: small values at once, large arrays and arrays of arrays when somebody asks for them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count as counting
from typing import cast

from ..reading.opened import FileStamp, open_raw, require_stamp
from .cursor import GgufCursor

Scalar = bool | int | float | str
Items = tuple["Scalar | Items", ...]

MAX_KEYS = 1 << 16
"""Real files have fewer than 100 keys, and one more per reshaped tensor. A file may not make us build more objects."""

MAX_NESTED_ARRAYS = 1 << 16
"""In all of a file: each is a step of its own, and 100 MB of empty ones would be eight million."""
MAX_ARRAY_DEPTH = 8

_MAX_KEY_BYTES = (1 << 16) - 1
_MAX_TEXT_BYTES = 16 << 20
_SMALL_ARRAY = 16
_TEXT, _ARRAY, _BOOL = 8, 9, 7
_SCALARS: Mapping[int, struct.Struct] = {
    code: struct.Struct("<" + letter) for code, letter in enumerate("BbHhIifB")
} | {10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d")}
_SHORTEST_KEY_BYTES = 8 + 4 + 1


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array too long to be worth reading unasked, such as a tokenizer's words, or one of arrays."""

    path: str
    stamp: FileStamp
    item_type: int
    count: int
    start: int
    """Offset of the first item in the file."""

    def read(self) -> Items:
        """The items, arrays among them as tuples. Raises SafetensorsLoadError when the file is no longer the one whose
        header was read."""
        with open_raw(self.path) as file:
            require_stamp(self.path, file, self.stamp)
            return _items(GgufCursor(self.path, file, self.stamp.size_bytes, self.start), self.item_type, self.count)


Value = Scalar | Items | GgufArray


def read_metadata(cursor: GgufCursor, count: int, stamp: FileStamp) -> Mapping[str, Value]:
    """The next `count` pairs of key and value."""
    if count > min(MAX_KEYS, cursor.left_bytes // _SHORTEST_KEY_BYTES):
        cursor.damaged(f"header is said to hold {count} keys")
    metadata: dict[str, Value] = {}
    nested = counting(1)
    for _ in range(count):
        key = cursor.text("a key", _MAX_KEY_BYTES)
        if key in metadata:
            cursor.damaged("stands twice in the header", key)
        metadata[key] = _value(cursor, key, stamp, nested)
    return metadata


def _value(cursor: GgufCursor, key: str, stamp: FileStamp, nested: Iterator[int]) -> Value:
    kind = cursor.u32()
    if kind != _ARRAY:
        return _scalar(cursor, kind, key)
    item_type, count = _array_head(cursor, key)
    start = cursor.position_bytes
    if count <= _SMALL_ARRAY and item_type != _ARRAY:
        return _items(cursor, item_type, count, key)
    _skip(cursor, item_type, count, key, nested)
    return GgufArray(cursor.path, stamp, item_type, count, start)


def _array_head(cursor: GgufCursor, key: str = "") -> tuple[int, int]:
    """Type and number of the items that follow."""
    item_type, count = cursor.u32(), cursor.u64()
    if count > cursor.left_bytes:
        cursor.damaged(f"array is said to hold {count} items", key)
    return item_type, count


def _skip(cursor: GgufCursor, item_type: int, count: int, key: str, nested: Iterator[int], depth: int = 1) -> None:
    if item_type == _TEXT:
        cursor.skip_texts(count)
    elif item_type != _ARRAY:
        cursor.skip(count * _layout(cursor, item_type, key).size)
    elif depth == MAX_ARRAY_DEPTH:
        cursor.damaged(f"array is said to hold arrays more than {MAX_ARRAY_DEPTH} deep", key)
    else:
        for _ in range(count):
            if next(nested) > MAX_NESTED_ARRAYS:
                cursor.damaged(f"header is said to hold more than {MAX_NESTED_ARRAYS} arrays in arrays", key)
            _skip(cursor, *_array_head(cursor, key), key, nested, depth + 1)


def _items(cursor: GgufCursor, item_type: int, count: int, key: str = "") -> Items:
    if item_type == _ARRAY:
        return tuple(_items(cursor, *_array_head(cursor), key) for _ in range(count))
    return tuple(_scalar(cursor, item_type, key) for _ in range(count))


def _scalar(cursor: GgufCursor, kind: int, key: str) -> Scalar:
    if kind == _TEXT:
        return cursor.text(f"the value of {key!r}", _MAX_TEXT_BYTES)
    value = cast(int | float, cursor.unpack(_layout(cursor, kind, key))[0])
    return bool(value) if kind == _BOOL else value


def _layout(cursor: GgufCursor, kind: int, key: str) -> struct.Struct:
    layout = _SCALARS.get(kind)
    if layout is None:
        cursor.damaged(f"value has type {kind}, which GGUF does not have here", key)
    return layout
