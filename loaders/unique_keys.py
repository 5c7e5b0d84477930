"""JSON objects in which no key stands twice: Python's own reader keeps the last one and says nothing."""

from __future__ import annotations

from typing import Any


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
