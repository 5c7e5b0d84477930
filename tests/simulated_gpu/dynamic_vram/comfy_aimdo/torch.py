"""Such memory as tensors."""

from __future__ import annotations

import simulated_gpu_backend as backend
import torch

from .host_buffer import HostBuffer


def aimdo_to_tensor(allocation: tuple[object, int, int], device: torch.device) -> torch.Tensor:
    _, address, nbytes = allocation
    return backend.device_bytes(address, nbytes, device.index)


def hostbuf_to_tensor(buffer: HostBuffer) -> torch.Tensor:
    return torch.frombuffer(buffer.memory, dtype=torch.uint8, count=buffer.size)
