"""Small but valid LoRA files, and a cache on a disk of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache

from .cache_kit import Disk, GatedLoad, House

Shapes = Mapping[str, "list[int]"]
WriteLora = Callable[..., Path]

PLAIN: Shapes = {"lora_unet_x.lora_up.weight": [8, 4], "lora_unet_x.lora_down.weight": [4, 8]}


@pytest.fixture(scope="session")
def write_lora() -> WriteLora:
    """`write_lora(path, shapes=..., metadata=...)` writes a safetensors file of half-precision zeros."""

    def write(path: Path, shapes: Shapes = PLAIN, metadata: Mapping[str, str] | None = None) -> Path:
        header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
        end = 0
        for key, shape in shapes.items():
            start, end = end, end + 2 * _elements(shape)
            header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        with path.open("r+b") as file:
            file.truncate(8 + len(text) + end)
        return path

    return write


@pytest.fixture
def house(tmp_path: Path) -> House:
    load, budget = GatedLoad(), ByteBudget(1 << 20)
    return House(Disk(tmp_path), load, budget, AdapterCache(budget, load=load))


def _elements(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
