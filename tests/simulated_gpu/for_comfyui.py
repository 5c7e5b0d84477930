"""What ComfyUI asks of a GPU, and of comfy_aimdo, beyond what torch does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import memory
import torch
import torch_cuda

_CAPABILITY = (8, 6)
_DYNAMIC_VRAM = Path(__file__).with_name("dynamic_vram")


class _Generator(torch.Generator):
    """Random numbers are the CPU's."""

    def __new__(cls, device: object = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")


def install() -> None:
    # Below 13 the host leaves its own kernels alone, which are for a real GPU.
    torch.version.cuda = "12.8"
    major, minor = _CAPABILITY
    facts = {"name": torch_cuda.NAME, "major": major, "minor": minor, "total_memory": memory.TOTAL_BYTES}
    cuda = torch.cuda
    cuda.get_device_properties = lambda device=None: SimpleNamespace(**facts)
    cuda.get_device_capability = lambda device=None: _CAPABILITY
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.get_allocator_backend = lambda: "simulated"
    cuda.ipc_collect = lambda: None
    # Logged where memory is short.
    cuda.memory.memory_summary = lambda: ""
    # The host would spread models over the second one.
    cuda.device_count = lambda: 1
    torch.Generator = _Generator
    # Before the installed one, which is a native library's.
    sys.path.insert(0, str(_DYNAMIC_VRAM))
