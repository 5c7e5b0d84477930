"""Files larger than memory and swap together: what is mapped costs no memory of its own, so they load all the same."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import psutil
import pytest
import torch

from warmstack.loaders import ModelLoader, load_gguf, load_safetensors_robust
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

from .gguf.gguf_files import RawTensor, gguf_bytes

LAST = b"the end."


def write_sparse(path: Path, head: bytes, data_bytes: int) -> str:
    """`head`, and a hole as data section, but for its last eight bytes."""
    with path.open("wb") as file:
        file.write(head)
        os.truncate(file.fileno(), len(head) + data_bytes)
        file.seek(-len(LAST), os.SEEK_END)
        file.write(LAST)
    return str(path)


@pytest.fixture
def more_bytes() -> int:
    """Twice of what there is; where the kernel counts every mapping in full by order of the administrator, a little."""
    mode = Path("/proc/sys/vm/overcommit_memory")
    if mode.exists() and mode.read_text().strip() == "2":
        return 1 << 20
    total_bytes = psutil.virtual_memory().total + psutil.swap_memory().total
    return total_bytes * 2 // 4096 * 4096


@pytest.fixture
def huge(tmp_path: Path, more_bytes: int) -> str:
    entry = {"dtype": "U8", "shape": [more_bytes // 4096, 4096], "data_offsets": [0, more_bytes]}
    text = json.dumps({"huge": entry}).encode()
    return write_sparse(tmp_path / "huge.safetensors", struct.pack("<Q", len(text)) + text, more_bytes)


def last_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1)[-len(LAST) :].numpy().tobytes()


def test_lazy_maps_it(huge: str):
    assert last_bytes(load_safetensors_robust(huge, strategy="lazy")["huge"]) == LAST


def test_auto_maps_it(huge: str, more_bytes: int):
    result = ModelLoader().load_checkpoint(huge)
    assert last_bytes(result["huge"]) == LAST
    if more_bytes > 1 << 20:
        assert result.metrics.strategy == "lazy"
        assert "of free memory" in result.reasons[0]


def test_a_write_stays_private(huge: str):
    tensor = load_safetensors_robust(huge, strategy="lazy")["huge"]
    tensor[-1, -8:] = 0
    assert last_bytes(load_safetensors_robust(huge, strategy="lazy")["huge"]) == LAST


def test_packed_gguf_maps_it(tmp_path: Path, more_bytes: int):
    kind = GGUF_TYPES["Q4_K"]
    blocks = more_bytes // kind.block_bytes
    head = gguf_bytes([RawTensor("huge", (kind.block_elements, blocks), kind.code, 0)])
    path = write_sparse(tmp_path / "huge.gguf", head, blocks * kind.block_bytes)
    assert last_bytes(load_gguf(path).packed["huge"].data) == LAST
