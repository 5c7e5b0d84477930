"""Pickled weights (.pt, .pth, .bin, .ckpt): tensors only, never code, and never in the background."""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from contextlib import suppress
from typing import Any

import torch

from ..errors import PickledFileError, SafetensorsLoadError
from ..reading.opened import open_raw, require_stamp, stamp_of


def load_pickled(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a pickled state dict, on the CPU, mapped where the file allows it. All else in it is left out, but
    for the numbers that some trainers leave as alphas.

    PickledFileError when the pickle holds more than tensors and plain values: unpickling it would run its code. For the
    foreground only: even the refusal costs an unpickler, so a background reader leaves such files alone."""
    name = os.fspath(path)
    with open_raw(name) as file:
        stamp = stamp_of(file)
        content = _unpickled(name, stamp.size_bytes)
        require_stamp(name, file, stamp)
    found = ((str(key), value) for key, value in _state_dict(content).items())
    tensors = {key: tensor for key, value in found if (tensor := _tensor(name, key, value)) is not None}
    if not tensors:
        raise SafetensorsLoadError(name, "holds no tensors; it is not a weight file")
    # A saved Parameter wants gradients: a cast of it would keep what it was made of. One with two names stays one.
    plain = {id(tensor): tensor.detach() for tensor in tensors.values()}
    return {key: plain[id(tensor)] for key, tensor in tensors.items()}


def _unpickled(path: str, file_bytes: int) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_can_be_mapped(path))
    except pickle.UnpicklingError as error:
        raise PickledFileError(path, "holds more than tensors, or is damaged; convert it to safetensors") from error
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        MemoryError,
        OverflowError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        EOFError,
        struct.error,
    ) as error:
        if _is_short_of_memory(error, file_bytes):
            reason = "needs more memory than there is; free some, or convert it to safetensors"
            raise SafetensorsLoadError(path, reason) from error
        reason = f"torch cannot read it as a weight file ({type(error).__name__}); download it again"
        raise SafetensorsLoadError(path, reason) from error


def _is_short_of_memory(error: Exception, file_bytes: int) -> bool:
    """By torch's words. Who asks for more bytes than the file has is damaged, however much memory there is."""
    if isinstance(error, MemoryError):
        return True
    asked = re.search(r"allocate (\d+) bytes", str(error))
    return " allocate " in str(error) and (asked is None or int(asked[1]) <= file_bytes)


def _tensor(path: str, key: str, value: object) -> torch.Tensor | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and key.endswith(".alpha"):
        # Left out, the LoRA would apply at another strength, and nobody would be told.
        with suppress(OverflowError):
            return torch.tensor(float(value), dtype=torch.float32, device="cpu")
    if not isinstance(value, torch.Tensor):
        return None
    if value.layout != torch.strided:
        raise SafetensorsLoadError(path, f"{key!r} is a sparse tensor; save it dense, or convert it to safetensors")
    if value.is_meta:
        raise SafetensorsLoadError(path, f"{key!r} is a tensor without numbers; save it with its numbers")
    return value


def _can_be_mapped(path: str) -> bool:
    """torch maps archives alone, and by a name in UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return zipfile.is_zipfile(path)


def _state_dict(content: Any) -> dict[Any, Any]:
    """Trainers wrap the weights: `{"state_dict": ...}`, or one dict in a dict."""
    if not isinstance(content, dict):
        return {}
    inner = content.get("state_dict")
    if inner is None and len(content) == 1:
        inner = next(iter(content.values()))
    return inner if isinstance(inner, dict) else content
