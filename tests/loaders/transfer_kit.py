"""Tensors as a file has them, and whether they came through an upload."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.complex64)


class Source(NamedTuple):
    tensors: dict[str, torch.Tensor]
    buffer: bytearray


def source_of(sizes: list[tuple[int, int]], seed: int = 0) -> Source:
    """(elements, index into DTYPES): tensors side by side in one buffer, as in a file, starting wherever that is."""
    total_bytes = sum(count * DTYPES[kind].itemsize for count, kind in sizes)
    random = np.random.default_rng(seed).integers(0, 2, total_bytes + 1, np.uint8)
    buffer = bytearray(random.tobytes())
    tensors, start = {}, 0
    for index, (count, kind) in enumerate(sizes):
        dtype = DTYPES[kind]
        empty = torch.empty(0, 3, dtype=dtype)
        tensors[f"t{index}"] = torch.frombuffer(buffer, dtype=dtype, count=count, offset=start) if count else empty
        start += count * dtype.itemsize
    return Source(tensors, buffer)


def raw(tensor: torch.Tensor) -> bytes:
    """Bits and not values: NaN equals NaN, and fp8 has no comparison."""
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_arrived(uploaded: object, source: Source) -> None:
    assert isinstance(uploaded, dict)
    assert list(uploaded) == list(source.tensors)
    for key, tensor in source.tensors.items():
        assert (uploaded[key].dtype, uploaded[key].shape) == (tensor.dtype, tensor.shape)
        assert raw(uploaded[key]) == raw(tensor), key
