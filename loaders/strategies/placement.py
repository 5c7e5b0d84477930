"""Tensors to their devices and dtype."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from ..cancelling import Cancelled, never
from ..errors import SafetensorsLoadError
from ..files.dtypes import TORCH_DTYPES
from ..files.header import SafetensorsHeader
from ..reading.views import AS_STORED, torch_shape
from ..upload.uploads import Uploads

_REFUSALS = (RuntimeError, AssertionError, TypeError)
"""What torch raises for a device that is absent or full; for CUDA in a build without it; for a dtype that MPS lacks."""


def require_devices(path: str, devices: Mapping[str, str], uploads: Uploads) -> None:
    """SafetensorsLoadError when one of `devices` (key -> device) is not there."""
    first_keys: dict[str, str] = {}
    for key, device in devices.items():
        first_keys.setdefault(device, key)
    for device, key in first_keys.items():
        try:
            if uploads.takes(device):
                uploads.find(device)
            else:
                torch.empty(0, device=device)
        except _REFUSALS as error:
            raise _unplaced(path, key, device, None, error) from error


def require_dtypes(header: SafetensorsHeader, keys: Collection[str], dtype: torch.dtype | None) -> None:
    """SafetensorsLoadError when torch holds nothing like one of `keys`, or has no cast of it to `dtype`."""
    if {header.tensors[key].dtype for key in keys} <= AS_STORED:
        return
    for key in keys:
        torch_shape(header.path, key, *header.tensors[key][:2])
    if dtype is None or dtype == TORCH_DTYPES.get("F4"):
        return
    packed = next((key for key in keys if header.tensors[key].dtype == "F4"), None)
    if packed is not None:
        cure = "load it without dtype, or leave that one on disk with device_map"
        raise SafetensorsLoadError(header.path, f"{packed!r} is F4, which torch casts to nothing else; {cure}")


def place_tensor(path: str, key: str, tensor: torch.Tensor, device: str, dtype: torch.dtype | None) -> torch.Tensor:
    """`tensor` on `device`; a floating-point one as `dtype`. What already is where and as it should be stays the same
    object. `path` and `key` are for the error of a device that is absent or full."""
    cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if device == "cpu" and cast == tensor.dtype:
        return tensor
    try:
        return tensor.to(device=device, dtype=cast)
    except _REFUSALS as error:
        raise _unplaced(path, key, device, cast, error) from error


def on_its_own(path: str, key: str, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor`, or a copy when it keeps more memory alive than its own. `path` and `key` as for `place_tensor`."""
    if tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    try:
        return tensor.clone()
    except RuntimeError as error:
        raise _unplaced(path, key, "cpu", None, error) from error


def send_tensors(
    path: str,
    tensors: Mapping[str, torch.Tensor],
    devices: Mapping[str, str],
    dtype: torch.dtype | None,
    uploads: Uploads,
    cancelled: Cancelled = never,
) -> dict[str, torch.Tensor]:
    """Those of `tensors` that `devices` puts on a GPU, there; floating-point ones as `dtype`. The others are for
    `place_tensor`. LoadCancelledError between two slots once `cancelled()` is true."""
    sent: dict[str, torch.Tensor] = {}
    asking = False

    def ask() -> bool:
        nonlocal asking
        asking = True
        answer = cancelled()
        asking = False
        return answer

    for device in dict.fromkeys(filter(uploads.takes, devices.values())):
        together = {key: tensors[key] for key, its in devices.items() if its == device and tensors[key].is_cpu}
        try:
            sent |= uploads.place(path, together, device, dtype, ask)
        except _REFUSALS as error:
            if asking:
                # What `cancelled` raises is the caller's.
                raise
            raise _unplaced(path, next(iter(together)), device, dtype, error) from error
    return sent


def _unplaced(
    path: str, key: str, device: str, dtype: torch.dtype | None, error: BaseException
) -> SafetensorsLoadError:
    cause = str(error).partition("\n")[0].removeprefix(f"{device}: ").rstrip(".")
    wanted = device if dtype is None else f"{device} as {dtype}"
    cure = "; name a dtype that it has, or another device for it" if isinstance(error, TypeError) else ""
    return SafetensorsLoadError(path, f"{key!r} cannot go to {wanted}: {cause}{cure}")
