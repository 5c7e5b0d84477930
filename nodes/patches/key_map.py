"""Cutting a model's key map down to what one file can match, and naming the map so that results can be shared."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

Offset: TypeAlias = "tuple[int, int, int]"
"""(dimension, start, length): the slice of a weight that a patch applies to, as the host writes it."""
Target: TypeAlias = "str | tuple[str, Offset] | tuple[str, Offset | None, Callable[..., object]]"
"""A weight's name in the model, or (name, offset), or (name, offset, function of the delta)."""


def restrict(key_map: Mapping[str, Target], file_keys: Iterable[str]) -> dict[str, Target]:
    """The entries of `key_map`, in their order, that some key of the file extends.

    Every name the host probes for an entry `x` is `x` followed by `.` or by `_lora`. An entry that no file key extends
    that way yields nothing, so leaving it out cannot change the result of the host's matching; the order decides which
    of two entries with one target wins, so it is kept.
    """
    longest = max(map(len, key_map), default=0)
    stems: set[str] = set()
    for key in file_keys:
        _add_stems(key, ".", longest, stems)
        _add_stems(key, "_lora", longest, stems)
    return {x: target for x, target in key_map.items() if x in stems}


def weight_key(target: Target) -> str:
    """Name of the weight that `target` patches."""
    return target if isinstance(target, str) else target[0]


def fingerprint(key_map: Mapping[str, Target], shapes: Mapping[str, object]) -> str:
    """Digest of a key map and of the shapes it leads to: equal digests may share prepared patches."""
    digest = hashlib.blake2b(digest_size=16)
    for x, target in key_map.items():
        digest.update(f"{x}\0{_describe(target)}\n".encode())
    for key, shape in shapes.items():
        digest.update(f"{key}\0{shape}\n".encode())
    return digest.hexdigest()


def _add_stems(key: str, separator: str, longest: int, stems: set[str]) -> None:
    # All beginnings of one key of a hostile file would take gigabytes.
    at = key.rfind(separator, 0, longest + len(separator))
    while at > 0:
        stems.add(key[:at])
        at = key.rfind(separator, 0, at)


def _describe(target: Target) -> str:
    if isinstance(target, str) or len(target) == 2:
        return repr(target)
    function = target[2]
    if getattr(function, "__closure__", None) or not hasattr(function, "__qualname__"):
        # It may have captured something of this very model: such a map is equal to itself alone.
        return f"{target[:2]!r} {uuid.uuid4()}"
    return f"{target[:2]!r} {function.__module__}.{function.__qualname__}"
