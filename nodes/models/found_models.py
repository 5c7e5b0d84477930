"""The files behind the model names of a graph."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from ...loaders.errors import SafetensorsLoadError
from ...loaders.files.checkpoint import checkpoint_format
from ...loaders.files.shards import read_index
from ...prefetch.models.file import ModelFile
from .model_files import file_below

logger = logging.getLogger("warmstack")


def found_models(folders: Callable[[str], Sequence[str]], kind: str, name: str) -> tuple[ModelFile, ...]:
    """The file of that name in the first folder that has it, or all shards of its index; () when there is none.

    `folders(kind)`: the host's, in its order; KeyError for a kind that this host does not have."""
    try:
        path = file_below(folders(kind), name)
        return () if path is None else tuple(_files(kind, name.replace("\\", "/"), path))
    except (KeyError, OSError, SafetensorsLoadError):
        logger.debug("no model %r of kind %r", name, kind, exc_info=True)
        return ()


def _files(kind: str, name: str, path: str) -> list[ModelFile]:
    if checkpoint_format(path) != "index":
        return [_as_on_disk(kind, name, path)]
    folder = os.path.dirname(path)
    beside = os.path.dirname(name)
    shards = [(os.path.relpath(shard, folder).replace(os.sep, "/"), shard) for shard in read_index(path).files]
    return [
        _as_on_disk(kind, f"{beside}/{shard_name}" if beside else shard_name, shard) for shard_name, shard in shards
    ]


def _as_on_disk(kind: str, name: str, path: str) -> ModelFile:
    found = os.stat(path)
    return ModelFile(kind, name, path, found.st_size, found.st_mtime_ns)
