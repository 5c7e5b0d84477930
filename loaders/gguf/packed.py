"""PackedTensor: a tensor as its GGUF file packs it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .on_torch import dequantise_tensor
from .quant_types import GgufType


@dataclass(frozen=True, slots=True, eq=False)
class PackedTensor:
    """The bytes of a tensor, a half to a tenth of float16's. On a GPU, send these and dequantise there."""

    name: str
    type: GgufType
    shape: tuple[int, ...]
    """Of the numbers."""
    data: torch.Tensor
    """(bytes,) uint8. On the CPU it shows the mapped file: see `TensorFile.storage`."""
    reason: str
    """Why it is packed."""

    def to(self, device: torch.device | str) -> PackedTensor:
        return replace(self, data=self.data.to(device))

    def dequantise(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """The numbers, on the device of the bytes. SafetensorsLoadError for a type that has none to give."""
        return dequantise_tensor(self.data, self.type, self.shape, dtype, name=self.name)
