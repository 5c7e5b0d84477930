"""What a path means: one file of which format, an index of shards, or a folder with either."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from ..errors import SafetensorsLoadError
from ..reading.opened import unreadable
from .header import SAFETENSORS_SUFFIXES
from .other_formats import GGUF_SUFFIX, PICKLE_SUFFIXES
from .shards import INDEX_SUFFIX

Format = Literal["safetensors", "pickle", "gguf", "index"]
_PICKLED_INDEXES = tuple(f"{suffix}{INDEX_SUFFIX}" for suffix in PICKLE_SUFFIXES)


def checkpoint_format(path: str) -> Format:
    """The format of a file by its name; what has no known suffix is taken for safetensors, whose header tells."""
    name = path.lower()
    if name.endswith(INDEX_SUFFIX):
        return "index"
    if name.endswith(GGUF_SUFFIX):
        return "gguf"
    return "pickle" if name.endswith(PICKLE_SUFFIXES) else "safetensors"


def are_pickles(paths: Sequence[str]) -> bool:
    """Whether all of `paths`, one or more, are pickles."""
    return bool(paths) and all(checkpoint_format(path) == "pickle" for path in paths)


def is_weight_file(name: str) -> bool:
    """True when the name says that it is a weight file or an index of shards; nothing else is offered to users. Pickles
    in shards are loaded where a program asks for them."""
    suffixes = (*SAFETENSORS_SUFFIXES, *PICKLE_SUFFIXES, GGUF_SUFFIX, f".safetensors{INDEX_SUFFIX}")
    return name.lower().endswith(suffixes)


def find_checkpoint(path: str) -> str:
    """`path` itself, or what a folder holds: its index, else its only weight file, safetensors before any other."""
    if not os.path.isdir(path):
        return path
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise unreadable(path, error) from error
    safetensors = ((f".safetensors{INDEX_SUFFIX}",), SAFETENSORS_SUFFIXES)
    for suffixes in (*safetensors, (GGUF_SUFFIX,), _PICKLED_INDEXES, PICKLE_SUFFIXES):
        found = [name for name in names if name.lower().endswith(suffixes)]
        if len(found) == 1:
            return os.path.join(path, found[0])
        if found:
            parts = ", or give load_shards all parts of one model"
            cure = f"name one of them{parts if suffixes in (SAFETENSORS_SUFFIXES, PICKLE_SUFFIXES) else ''}"
            raise SafetensorsLoadError(path, f"holds {', '.join(found[:4])}; {cure}")
    raise SafetensorsLoadError(path, "is a folder without weight files")
