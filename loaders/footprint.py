"""Footprint: the bytes that a load will take, from the headers and never by a guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from .dtypes import TORCH_DTYPES
from .gguf_header import GgufHeader
from .header import DTYPE_BITS, SafetensorsHeader, TensorEntry
from .opened import stamp_path
from .strategy import LoadRequest


class Footprint(NamedTuple):
    """What a request takes when all it wants is read before any of it is placed."""

    read_bytes: int
    """Of the tensors that are wanted, as stored."""
    kept_bytes: int
    """The part of them that is handed out as it was read."""
    copied_bytes: Mapping[str, int]
    """device -> bytes of the tensors that are cast or moved there."""

    @property
    def host_bytes(self) -> int:
        """Private memory of the host, at the worst moment."""
        return self.read_bytes + self.copied_bytes.get("cpu", 0)

    @property
    def device_bytes(self) -> Mapping[str, int]:
        """device -> bytes of what is handed out."""
        return Counter(self.copied_bytes) + Counter({"cpu": self.kept_bytes})


def footprint(request: LoadRequest) -> Footprint:
    """Of safetensors. A request for whole files as they are needs no header."""
    if request.device_map is None and request.dtype is None and request.device == "cpu":
        size_bytes = sum(stamp_path(path).size_bytes for path in request.paths)
        return Footprint(size_bytes, size_bytes, {})
    return footprint_of(map(request.header, request.paths), request)


def footprint_of(headers: Iterable[SafetensorsHeader], request: LoadRequest) -> Footprint:
    read_bytes = kept_bytes = 0
    copied_bytes: Counter[str] = Counter()
    for header in headers:
        for key, device in request.devices(header.tensors).items():
            entry = header.tensors[key]
            stored_bytes, placed_bytes = entry.end - entry.start, _placed_bytes(entry, request)
            read_bytes += stored_bytes
            if device == "cpu" and not _is_cast(entry, request):
                kept_bytes += stored_bytes
            else:
                copied_bytes[device] += placed_bytes
    return Footprint(read_bytes, kept_bytes, copied_bytes)


def gguf_device_bytes(header: GgufHeader, request: LoadRequest) -> Mapping[str, int]:
    """device -> bytes of the tensors that `request` puts there, dequantised to its dtype or else to float32."""
    needed: Counter[str] = Counter()
    dtype = request.dtype or torch.float32
    for key, device in request.devices(header.tensors).items():
        entry = header.tensors[key]
        whole_numbers = entry.type.plain and entry.type.name.startswith("I")
        stored_bytes = entry.end - entry.start
        needed[device] += stored_bytes if whole_numbers else math.prod(entry.shape) * dtype.itemsize
    return needed


def tensor_device_bytes(tensors: Mapping[str, torch.Tensor], request: LoadRequest) -> Mapping[str, int]:
    """device -> bytes of the `tensors` that `request` puts there."""
    needed: Counter[str] = Counter()
    for key, device in request.devices(tensors).items():
        tensor = tensors[key]
        dtype = request.dtype if request.dtype is not None and tensor.is_floating_point() else tensor.dtype
        needed[device] += tensor.numel() * dtype.itemsize
    return needed


def _is_cast(entry: TensorEntry, request: LoadRequest) -> bool:
    if request.dtype is None or not entry.dtype.startswith(("F", "BF")):
        return False
    return TORCH_DTYPES.get(entry.dtype) != request.dtype


def _placed_bytes(entry: TensorEntry, request: LoadRequest) -> int:
    stored_bytes = entry.end - entry.start
    if request.dtype is None or not _is_cast(entry, request):
        return stored_bytes
    return stored_bytes * 8 // DTYPE_BITS[entry.dtype] * request.dtype.itemsize
