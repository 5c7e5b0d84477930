"""Tensors to their devices and dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from .errors import SafetensorsLoadError
from .uploads import Uploads


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
        except (RuntimeError, AssertionError) as error:
            raise _unplaced(path, key, device, None, error) from error


def place_tensor(path: str, key: str, tensor: torch.Tensor, device: str, dtype: torch.dtype | None) -> torch.Tensor:
    """`tensor` on `device`; a floating-point one as `dtype`. What already is where and as it should be stays the same
    object. `path` and `key` are for the error of a device that is absent or full."""
    cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if device == "cpu" and cast == tensor.dtype:
        return tensor
    try:
        return tensor.to(device=device, dtype=cast)
    except (RuntimeError, AssertionError) as error:
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
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, torch.Tensor]:
    """Those of `tensors` that `devices` puts on a GPU, there; floating-point ones as `dtype`. The others are for
    `place_tensor`. LoadCancelledError between two slots once `cancelled()` is true."""
    sent: dict[str, torch.Tensor] = {}
    for device in dict.fromkeys(filter(uploads.takes, devices.values())):
        together = {key: tensors[key] for key, its in devices.items() if its == device and tensors[key].is_cpu}
        try:
            sent |= uploads.place(path, together, device, dtype, cancelled)
        except (RuntimeError, AssertionError) as error:
            raise _unplaced(path, next(iter(together)), device, dtype, error) from error
    return sent


def _unplaced(
    path: str, key: str, device: str, dtype: torch.dtype | None, error: BaseException
) -> SafetensorsLoadError:
    # AssertionError: what torch raises for CUDA in a build without it.
    cause = str(error).partition("\n")[0].removeprefix(f"{device}: ")
    wanted = device if dtype is None else f"{device} as {dtype}"
    return SafetensorsLoadError(path, f"{key!r} cannot go to {wanted}: {cause}")
