"""Windows and macOS lack much that Linux has. A process without it loads the same bits and gets an answer to everything
it asks, which says nothing about their paths and file systems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import StrategyRegistry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One model in every format, large enough for several threads."""
    generator = torch.Generator().manual_seed(3)
    saved = {"large": torch.randn(6 << 20, generator=generator)}
    saved |= {f"small.{number}": torch.randn(1000, generator=generator) for number in range(4)}
    save_file(saved, tmp_path / "whole.safetensors")
    for number in range(3):
        save_file(dict(list(saved.items())[number::3]), tmp_path / f"shard-{number}.safetensors")
    torch.save(saved, tmp_path / "pickle.pt")
    writer = gguf.GGUFWriter(tmp_path / "packed.gguf", "flux")
    packed = gguf.quants.quantize(saved["large"].numpy().reshape(-1, 1024), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("large", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("small", saved["small.0"].numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    values = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    torch.save(saved, tmp_path / "saved.pt")
    torch.save({"large": torch.from_numpy(np.array(values)), "small": saved["small.0"]}, tmp_path / "dequantised.pt")
    return tmp_path


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_loads_the_same_bits_and_answers_everything(folder: Path, platform: str):
    script = str(Path(__file__).with_name("other_system.py"))
    ended = subprocess.run([sys.executable, script, platform, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    strategies = {"auto", *StrategyRegistry.default().strategies}
    both = {f"{strategy} {files}" for strategy in strategies for files in ("whole", "shards")}
    assert set(ended.stdout.splitlines()) == both - {"parallel whole", "fast_single_file shards"}
