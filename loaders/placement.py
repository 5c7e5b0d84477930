"""Tensors to their devices and dtype."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .errors import SafetensorsLoadError


def place_tensors(
    path: str, tensors: Mapping[str, torch.Tensor], devices: Mapping[str, str], dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """The tensors that `devices` names, each on its device; floating-point ones as `dtype`. What already is where and
    as
    it should be stays the same object. `path` is for the error of a device that is absent or full."""
    return {key: _placed(path, key, tensors[key], device, dtype) for key, device in devices.items()}


def _placed(path: str, key: str, tensor: torch.Tensor, device: str, dtype: torch.dtype | None) -> torch.Tensor:
    cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if device == "cpu" and cast == tensor.dtype:
        return tensor
    try:
        return tensor.to(device=device, dtype=cast)
    except (RuntimeError, AssertionError) as error:
        # AssertionError: what torch raises for CUDA in a build without it.
        cause = str(error).partition("\n")[0]
        raise SafetensorsLoadError(path, f"{key!r} cannot go to {device} as {cast}: {cause}") from error
