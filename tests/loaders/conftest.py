from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .transfer_kit import raw

WriteRaw = Callable[..., str]
"""write_raw(header: object | bytes, data: bytes = b"", length: int | None = None) -> path"""


@pytest.fixture
def write_raw(tmp_path: Path) -> WriteRaw:
    def write(header: object, data: bytes = b"", length: int | None = None) -> str:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "raw.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return str(path)

    return write


@pytest.fixture
def state_dict() -> dict[str, torch.Tensor]:
    """Every dtype a LoRA or checkpoint comes in, a scalar, an empty tensor and a convolution."""
    generator = torch.Generator().manual_seed(7)
    plain = torch.randn(6, 10, generator=generator)
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
    tensors = {f"block.{str(dtype).removeprefix('torch.')}": plain.to(dtype) for dtype in floats}
    tensors |= {f"ints.{bits}": torch.arange(-9, 9).to(getattr(torch, f"int{bits}")) for bits in (8, 16, 32, 64)}
    tensors["ints.unsigned"] = torch.arange(200, dtype=torch.uint8)
    tensors["mask"] = torch.tensor([[True, False, True]])
    tensors["alpha"] = torch.tensor(16.0)
    tensors["empty"] = torch.empty(0, 4, dtype=torch.bfloat16)
    tensors["conv"] = torch.randn(4, 3, 3, 3, generator=generator)
    return tensors


@pytest.fixture
def saved(tmp_path: Path, state_dict: dict[str, torch.Tensor]) -> str:
    path = tmp_path / "saved.safetensors"
    save_file(state_dict, path, metadata={"format": "pt", "ss_output_name": "ink"})
    return str(path)


@pytest.fixture(scope="session")
def large_original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(11)
    noise = torch.randint(0, 255, (1 << 20, 9), generator=generator, dtype=torch.uint8)
    tensors = {f"layer_{index}.weight": noise.roll(index + 1, 0) for index in range(8)}
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    save_file(tensors, path)
    return path, tensors


@pytest.fixture
def large(tmp_path: Path, large_original: tuple[Path, dict[str, torch.Tensor]]) -> tuple[str, dict[str, torch.Tensor]]:
    """A file of several read chunks (75 MB), so that threads, cancels and direct reads have something to share. A copy,
    for the test to damage; the tensors are shared."""
    path, tensors = large_original
    shutil.copyfile(path, tmp_path / "large.safetensors")
    return str(tmp_path / "large.safetensors"), tensors


@pytest.fixture(scope="session")
def audited() -> list[str]:
    """Every path that is opened; an audit hook cannot be taken back, so there is one."""
    paths: list[str] = []
    sys.addaudithook(lambda event, arguments: paths.append(str(arguments[0])) if event == "open" else None)
    return paths


@pytest.fixture
def same_tensors() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], None]:
    def check(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
        assert actual.keys() == expected.keys()
        for key, tensor in expected.items():
            assert (actual[key].dtype, actual[key].shape) == (tensor.dtype, tensor.shape), key
            assert actual[key].is_contiguous()
            assert raw(actual[key]) == raw(tensor), key

    return check
