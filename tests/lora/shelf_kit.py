"""Adapters without files, and a shelf on a device that is not there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from warmstack.loaders.transfer import DeviceTransfer
from warmstack.loaders.upload.fake_device import FakeDevice
from warmstack.lora.cache.adapter import Adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.device.device_shelf import DeviceShelf
from warmstack.lora.library.file import AdapterKey

from ..loaders.transfer_kit import raw

SLOT_BYTES = 256


def adapter_of(name: str, nbytes: int = 1000, *, lead_bytes: int = 0) -> Adapter:
    """An adapter of one private buffer of about `nbytes`, whose content is a matter of its name. `lead_bytes` of them
    stand before the tensors, which shifts them all."""
    rows = max(1, (nbytes - lead_bytes) // 16)
    size_bytes = lead_bytes + rows * 16
    random = np.random.default_rng(sum(map(ord, name)))
    buffer = Owner(random.integers(1, 100, size_bytes, np.uint8).tobytes())
    tensors = {
        "up": torch.frombuffer(buffer, dtype=torch.float16, count=rows * 4, offset=lead_bytes).view(rows, 4),
        "down": torch.frombuffer(buffer, dtype=torch.float16, count=rows * 4, offset=lead_bytes + rows * 8),
        "none": torch.empty(0, 3, dtype=torch.float16),
    }
    key = AdapterKey(f"/loras/{name}.safetensors", size_bytes + 100, 1)
    return Adapter(key, tensors, {}, size_bytes, "private", buffer)


class Owner(bytearray):
    """Weakly referable, as an mmap is."""


def content(adapter: Adapter) -> dict[str, bytes]:
    return {key: raw(tensor) for key, tensor in adapter.tensors.items()}


class Shop:
    """A shelf of `budget_bytes` on a fake device, with a clock to steer."""

    def __init__(self, budget_bytes: int = 4000, *, fillers: int = 1, slots: int = 2, **device: Any) -> None:
        self.now_s = 100.0
        self.device = FakeDevice(**device)
        self.transfer = DeviceTransfer(self.device, slots=slots, slot_bytes=SLOT_BYTES, fillers=fillers)
        self.budget = ByteBudget(budget_bytes)
        self.shelf = DeviceShelf(self.transfer, self.budget, clock=lambda: self.now_s)


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread
