"""Filling a model that was built without weights (on `meta`), straight from the files."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from .cancelling import Cancelled
from .errors import SafetensorsValidationError
from .files.header import SafetensorsHeader
from .files.shards import ShardIndex, check_shards
from .progress import Progress, ProgressMeter
from .reading.filling import Pace
from .reading.opened import OpenFiles
from .reading.stream import StreamedPiece, stream_pieces
from .robust import Device, PathLike, request_for
from .strategies.placement import on_its_own, place_tensor, require_devices, require_dtypes, send_tensors
from .strategies.strategy import LoadRequest
from .upload.uploads import Uploads

MAX_BYTES = 256 << 20


class Filled(NamedTuple):
    """What of the model and of the files did not meet."""

    missing: tuple[str, ...]
    """Keys of the model that no file has; they stay as they were."""
    unexpected: tuple[str, ...]
    """Keys of the files that the model does not know; they were not read."""


def fill_module(
    module: torch.nn.Module,
    files: Sequence[PathLike],
    index: ShardIndex | None = None,
    *,
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    float32: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Filled:
    """Put the tensors of `files` into `module`, each as it arrives: host memory beyond the model is `max_bytes` and one
    tensor. Parameters become new ones, with the old one's `requires_grad`; what the device map leaves on disk stays.
    With a `dtype`, modules and parameters of the names or keys in `float32` become that instead, and all below them.

    SafetensorsValidationError before anything is read when the files contradict each other, `index`, or a shape of the
    model. A load that fails later leaves the module partly filled."""
    with OpenFiles() as opened:
        headers = check_shards([os.fspath(file) for file in files], index, opened=opened)
        request = replace(request_for(files, device, device_map, dtype), pace=Pace(cancelled), opened=opened)
        return fill_from(module, headers, request, float32=float32, max_bytes=max_bytes, progress=progress)


def fill_from(
    module: torch.nn.Module,
    headers: Mapping[str, SafetensorsHeader],
    request: LoadRequest,
    *,
    loaded: Mapping[str, dict[str, torch.Tensor]] | None = None,
    float32: Collection[str] = (),
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> Filled:
    """`fill_module` from files whose headers are known, with their tensors under the names of the model. What is
    `loaded` (path -> key -> tensor) is taken from there and not read."""
    targets = {**dict(module.named_parameters(remove_duplicate=False)), **_persistent_buffers(module)}
    _check_shapes(headers.values(), targets)
    wanted = [
        (header, [key for key in request.devices(header.tensors) if key in targets]) for header in headers.values()
    ]
    meter = ProgressMeter(_size_bytes(wanted), wanted, progress)
    pace = replace(request.pace, reached=meter.add)
    with Uploads() as uploads:
        for header, keys in wanted:
            if loaded is None:
                require_dtypes(header, keys, request.dtype)
            require_devices(header.path, request.devices(dict.fromkeys(keys)), uploads)
        if loaded is None:
            stream = stream_pieces(wanted, pace, max_bytes=max_bytes, opened=request.opened)
        else:
            stream = _one_by_one(wanted, loaded, pace)
        with closing(stream) as pieces:
            for piece in pieces:
                for key, tensor in _placed(piece, request, float32, uploads, pace):
                    _assign(module, key, tensor, targets[key])
                    del tensor
    meter.finish(request.paths[-1])
    found = {key: None for header in headers.values() for key in header.tensors}
    missing = tuple(key for key in targets if key not in found)
    return Filled(missing, tuple(key for key in found if key not in targets))


def _one_by_one(
    wanted: Iterable[tuple[SafetensorsHeader, list[str]]], loaded: Mapping[str, dict[str, torch.Tensor]], pace: Pace
) -> Generator[StreamedPiece, None, None]:
    for header, keys in wanted:
        for key in keys:
            tensor = loaded[header.path].pop(key)
            size_bytes = tensor.nbytes
            yield StreamedPiece(header, {key: tensor}, size_bytes, 0)
            del tensor
            pace.report(header.path, size_bytes, key)


def _placed(
    piece: StreamedPiece, request: LoadRequest, float32: Collection[str], uploads: Uploads, pace: Pace
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `piece` where and as they are wanted. What stays as it was read comes once more, on its own, when
    others were copied: the memory that it shares with those shall go."""
    path, tensors = piece.header.path, piece.tensors
    kept: dict[str, torch.Tensor] = {}
    devices = request.devices(tensors)
    for key, device in devices.items():
        pace.allow(path, 0)
        tensor = tensors.pop(key)
        stays_float32 = request.dtype is not None and not {key, *key.split(".")}.isdisjoint(float32)
        dtype = torch.float32 if stays_float32 else request.dtype
        sent = send_tensors(path, {key: tensor}, {key: device}, dtype, uploads, pace.ask)
        placed = sent.pop(key) if sent else place_tensor(path, key, tensor, device, dtype)
        if placed is tensor:
            kept[key] = tensor
        del tensor
        yield key, placed
        del placed
    if len(kept) < len(devices):
        for key, tensor in kept.items():
            yield key, on_its_own(path, key, tensor)


def _size_bytes(wanted: Iterable[tuple[SafetensorsHeader, list[str]]]) -> int:
    return sum(header.tensors[key].end - header.tensors[key].start for header, keys in wanted for key in keys)


def _persistent_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a state dict has."""
    saved = module.state_dict(keep_vars=True)
    return {key: buffer for key, buffer in module.named_buffers(remove_duplicate=False) if key in saved}


def _check_shapes(headers: Iterable[SafetensorsHeader], targets: Mapping[str, torch.Tensor]) -> None:
    for header in headers:
        for key, entry in header.tensors.items():
            if key in targets and entry.shape != tuple(targets[key].shape):
                reason = f"has shape {list(entry.shape)} and the model wants {list(targets[key].shape)}"
                raise SafetensorsValidationError(header.path, reason, key)


def _assign(module: torch.nn.Module, key: str, tensor: torch.Tensor, old: torch.Tensor) -> None:
    if isinstance(old, torch.nn.Parameter):
        tensor = torch.nn.Parameter(tensor, requires_grad=old.requires_grad and tensor.is_floating_point())
    set_tensor(module, key, tensor)


def set_tensor(module: torch.nn.Module, key: str, tensor: torch.Tensor) -> None:
    """Make `tensor` the parameter or buffer `key` of `module`."""
    owner, _, name = key.rpartition(".")
    place = module.get_submodule(owner)
    setattr(place, name, tensor)
    # Whatever hooks and patches the process has by now: while another thread is inside of accelerate's
    # `init_empty_weights`, what is registered goes to `meta`.
    held: dict[str, Any] = place._parameters if isinstance(tensor, torch.nn.Parameter) else place._buffers
    held[name] = tensor
