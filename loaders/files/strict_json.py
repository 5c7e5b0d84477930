"""JSON from strangers: no key twice in an object, and no text that takes many times its size as Python objects."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

_MOST_MARKS = 1 << 21
"""Of quotes and brackets, and of numbers: 160,000 tensors in a header, 500,000 in an index, several times what the
largest known models have. As objects that is at most 150 MB; 100 MB of `"a":"",` were 2 GB, made in a minute."""


class DuplicateKeyError(ValueError):
    """`key` stands twice in one object."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key {key!r} stands twice in one object")
        self.key = key


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`. DuplicateKeyError names the first key that comes again."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return found


def has_too_many_parts(raw: bytes | bytearray) -> bool:
    """True for text of more objects, lists and texts than may be parsed. Quotes inside a text do not count: one may
    hold a whole document of a trainer's."""
    if len(raw) <= _MOST_MARKS:
        return False
    # A quote behind two backslashes may end its text, and is then not to be left out.
    quotes = raw.count(b'"') - raw.count(b'\\"') + raw.count(b"\\\\")
    return quotes + raw.count(b"[") + raw.count(b"{") > _MOST_MARKS


def few_numbers(convert: Callable[[str], Any], text_bytes: int) -> Callable[[str], Any]:
    """`convert`, for `parse_int` or `parse_float` of a text; ValueError when it has too many of them."""
    if text_bytes <= 2 * _MOST_MARKS:
        return convert
    steps = count(1)

    def number(text: str) -> Any:
        if next(steps) > _MOST_MARKS:
            raise ValueError("too many numbers")
        return convert(text)

    return number
