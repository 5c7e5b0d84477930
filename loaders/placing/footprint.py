"""Footprint: the bytes that a load will take, from the headers and never by a guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from ..files.dtypes import TORCH_DTYPES
from ..files.header import SafetensorsHeader
from ..files.tensor_entry import DTYPE_BITS, TensorEntry
from ..gguf.header import GgufHeader
from ..reading.opened import stamp_path
from ..strategies.strategy import LoadRequest

_SMALL_BYTES = 4 << 20
"""Copied in a fraction of the time that reading it took, and as large as the pieces of a stream get."""


class Footprint(NamedTuple):
    """What a request takes when all it wants is read before any of it is placed."""

    read_bytes: int
    """Of the tensors that are wanted, as stored."""
    kept_bytes: int
    """The part of them that is handed out as it was read."""
    copied_bytes: Mapping[str, int]
    """device -> bytes of the tensors that are cast or moved there."""
    recopied_bytes: int = 0
    """The part of the kept ones that is copied all the same, so that the memory of the others can go."""
    leftover_bytes: int = 0
    """Of the others, where their memory stays if a file is read into one buffer."""

    @property
    def host_bytes(self) -> int:
        """Private memory of the host, at the worst moment."""
        return self.read_bytes + self.copied_bytes.get("cpu", 0) + self.recopied_bytes

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
    read_bytes = kept_bytes = recopied_bytes = leftover_bytes = 0
    copied_bytes: Counter[str] = Counter()
    for header in headers:
        file_bytes = file_kept_bytes = 0
        for key, device in request.devices(header.tensors).items():
            entry = header.tensors[key]
            stored_bytes = entry.end - entry.start
            file_bytes += stored_bytes
            if device == "cpu" and not _is_cast(entry, request):
                file_kept_bytes += stored_bytes
            else:
                copied_bytes[device] += _placed_bytes(entry, request)
        read_bytes += file_bytes
        kept_bytes += file_kept_bytes
        if worth_copying(file_kept_bytes, file_bytes):
            recopied_bytes += file_kept_bytes
        elif file_kept_bytes:
            leftover_bytes += file_bytes - file_kept_bytes
    return Footprint(read_bytes, kept_bytes, copied_bytes, recopied_bytes, leftover_bytes)


def worth_copying(kept_bytes: int, buffer_bytes: int) -> bool:
    """Whether the tensors that could stay as they were read are copied, so that a buffer goes whose others were: when
    they are at most half of it, or it is a small one."""
    return 0 < kept_bytes < buffer_bytes and (2 * kept_bytes <= buffer_bytes or buffer_bytes <= _SMALL_BYTES)


def handed_out_bytes(headers: Iterable[SafetensorsHeader], request: LoadRequest) -> dict[str, int]:
    """key -> bytes of every tensor of `headers` once it is cast, wherever it goes."""
    return {key: _placed_bytes(entry, request) for header in headers for key, entry in header.tensors.items()}


def dequantised_bytes(header: GgufHeader, request: LoadRequest) -> dict[str, int]:
    """key -> bytes of every tensor, dequantised to the dtype of `request` or else to float32, wherever it goes."""
    itemsize = (request.dtype or torch.float32).itemsize
    return {
        key: entry.end - entry.start
        if entry.type.plain and entry.type.name.startswith("I")
        else math.prod(entry.shape) * itemsize
        for key, entry in header.tensors.items()
    }


def gguf_device_bytes(header: GgufHeader, request: LoadRequest) -> Mapping[str, int]:
    """device -> bytes of the tensors that `request` puts there."""
    needed: Counter[str] = Counter()
    sizes = dequantised_bytes(header, request)
    for key, device in request.devices(sizes).items():
        needed[device] += sizes[key]
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
