"""A pipe or a device that is called like a weight file: opening the one waits for a writer, reading the other may never
end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from warmstack.loaders import (
    ModelLoader,
    SafetensorsCache,
    SafetensorsLoadError,
    drop_file,
    load_pickled,
    load_safetensors_cached,
    load_safetensors_robust,
    map_tensors,
    read_gguf_header,
    read_header,
    read_index,
    read_metadata,
    read_tensors,
    resident_bytes,
    warm_file,
)

READERS: dict[str, Callable[[str], object]] = {
    "read_header": read_header,
    "read_metadata": read_metadata,
    "read_gguf_header": read_gguf_header,
    "read_index": read_index,
    "map_tensors": map_tensors,
    "read_tensors": read_tensors,
    "load_pickled": load_pickled,
    "resident_bytes": resident_bytes,
    "warm_file": lambda path: warm_file(path, cancelled=lambda: False),
    "drop_file": drop_file,
    "load_safetensors_robust": load_safetensors_robust,
    "load_safetensors_cached": lambda path: load_safetensors_cached(path, cache=SafetensorsCache(1)),
    "load_checkpoint": lambda path: ModelLoader().load_checkpoint(path),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_pipe_is_refused_and_nobody_waits_for_its_writer(read: Callable[[str], object], tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(SafetensorsLoadError, match="no regular file") as caught:
        read(str(tmp_path / "pipe.safetensors"))
    assert "pipe.safetensors" in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="the system has no devices among its files")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_a_device_is_refused_unread(read: Callable[[str], object], tmp_path: Path):
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    with pytest.raises(SafetensorsLoadError, match="no regular file"):
        read(str(tmp_path / "zero.safetensors"))
