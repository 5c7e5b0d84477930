"""The pickles of one model, compared with each other and with their index before anything of them is placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ..reading.filling import Pace
from ..reading.opened import FileStamp, OpenFiles, open_raw, require_stamp, stamp_of
from .header import SafetensorsHeader
from .pickled import load_pickled
from .shards import ShardIndex, check_keys, require_files, require_present
from .tensor_entry import TensorEntry


class LoadedPickles(NamedTuple):
    """What the files hold: mapped, as a rule, with nothing read."""

    tensors: dict[str, dict[str, torch.Tensor]]
    """path -> key -> tensor."""
    stamps: Mapping[str, FileStamp]

    def headers(self) -> dict[str, SafetensorsHeader]:
        """path -> names, shapes and sizes, as a safetensors file states them."""
        return {
            path: SafetensorsHeader(path, {key: _entry(tensor) for key, tensor in its.items()}, {}, 0, *stamp)
            for (path, its), stamp in zip(self.tensors.items(), self.stamps.values(), strict=True)
        }

    def require_unchanged(self, path: str, opened: OpenFiles | None) -> None:
        """For who has copied the tensors of `path`: of a file that was rewritten meanwhile they would be of two."""
        with open_raw(path, opened, last=True) as file:
            require_stamp(path, file, self.stamps[path])


def load_pickles(
    files: Sequence[str], index: ShardIndex | None, pace: Pace, opened: OpenFiles | None = None
) -> LoadedPickles:
    """The tensors of `files`. Raises as `check_shards` and `load_pickled` do, and LoadCancelledError between two."""
    paths = require_files(files)
    for path in paths:
        require_present(path, index)
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    stamps: dict[str, FileStamp] = {}
    for path in paths:
        pace.allow(path, 0)
        with open_raw(path, opened) as file:
            stamps[path] = stamp_of(file)
        tensors[path] = load_pickled(path)
    check_keys(tensors, index)
    return LoadedPickles(tensors, stamps)


def _entry(tensor: torch.Tensor) -> TensorEntry:
    return TensorEntry(str(tensor.dtype), tuple(tensor.shape), 0, tensor.nbytes)
