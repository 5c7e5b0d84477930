"""Which tensor goes where when devices are only limited in bytes: the first with room, block after block."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from ..errors import SafetensorsLoadError
from .device_map import DISK

_BLOCK = re.compile(r"(?:.*?\.)?\d+\.")
"""Up to the first number: `x.blocks.3.attn.weight` is of the block `x.blocks.3.`, whatever is numbered inside it."""


def plan_devices(path: str, sizes: Mapping[str, int], limits: Mapping[str, int]) -> dict[str, str]:
    """key -> device of every key of `sizes`, which are bytes as they are handed out, in the order of the files.

    A block goes as a whole to the first device of `limits` with room for it; where none has, its tensors go one by one.
    What fits nowhere stays on `"disk"`, if that is one of `limits`: it comes last and has no limit. Else
    SafetensorsLoadError; `path` is for that."""
    room_bytes: dict[str, float] = {device: limit for device, limit in limits.items() if device != DISK}
    if DISK in limits:
        room_bytes[DISK] = math.inf
    devices: dict[str, str] = {}
    for keys in _blocks(sizes):
        block_bytes = sum(sizes[key] for key in keys)
        whole = _first_with_room(room_bytes, block_bytes)
        for key in keys:
            device = whole or _first_with_room(room_bytes, sizes[key])
            if device is None:
                needed_bytes, limit_bytes = sum(sizes.values()), sum(limits.values())
                reason = f"needs {needed_bytes} bytes and max_memory has {limit_bytes}, without room for {key!r}"
                raise SafetensorsLoadError(path, f"{reason}; list 'disk' to leave the rest there")
            room_bytes[device] -= sizes[key]
            devices[key] = device
    return {key: devices[key] for key in sizes}


def _blocks(keys: Iterable[str]) -> list[list[str]]:
    """The keys of each block, and each other one alone, by where the first of them stands."""
    blocks: dict[str, list[str]] = {}
    for key in keys:
        match = _BLOCK.match(key)
        blocks.setdefault(key if match is None else match[0], []).append(key)
    return list(blocks.values())


def _first_with_room(room_bytes: Mapping[str, float], nbytes: int) -> str | None:
    return next((device for device, room in room_bytes.items() if nbytes <= room), None)
