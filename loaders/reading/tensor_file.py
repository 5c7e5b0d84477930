"""TensorFile: the tensors of one file and the one buffer that they are views of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ..files.header import SafetensorsHeader
from .views import PrivateBuffer

Storage = Literal["private", "mapped"]


@dataclass(frozen=True, slots=True, eq=False)
class TensorFile:
    """A loaded safetensors file. One surviving tensor keeps all of it in memory, and `torch.save` of one writes the
    whole storage: clone what shall outlive the file."""

    tensors: dict[str, torch.Tensor]
    """In the order of the file."""
    header: SafetensorsHeader
    buffer: PrivateBuffer
    """Owner of the bytes. Every tensor with elements keeps it alive, so a `weakref.finalize` on it fires when the
    memory is really free. Never close it: that would pull the memory from under the tensors."""
    storage: Storage
    """"private" memory holds what was read, whatever happens to the file. "mapped" shows the file itself: one that is
    rewritten in place changes the tensors, and one that is truncated kills the process that touches them."""

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.header.metadata

    @property
    def nbytes(self) -> int:
        """Bytes of the data section, which is what all tensors take together."""
        return self.header.data_bytes
