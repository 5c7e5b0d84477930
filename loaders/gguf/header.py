"""The GGUF header: read, validated, and nothing else of the file touched. Needs neither numpy nor torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..errors import SafetensorsValidationError, damaged
from ..reading.opened import FileStamp, open_raw, stamp_of
from .cursor import GgufCursor
from .metadata import Value, read_metadata
from .quant_types import GGUF_TYPES, GgufType

MAX_TENSORS = 1 << 17
"""The largest models in the wild have a few thousand. A file may not make us build more objects than this."""

_MAGIC = int.from_bytes(b"GGUF", "little")
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_NAME_BYTES = (1 << 16) - 1
_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 60
"""Counted with 1 for 0, so that the shape of an empty tensor fits into 64 bits too."""
_SHORTEST_TENSOR_BYTES = 8 + 4 + 4 + 8
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
_BY_CODE = {kind.code: kind for kind in GGUF_TYPES.values()}


class GgufEntry(NamedTuple):
    """One tensor of the file: `start` and `end` are byte offsets in the data section."""

    type: GgufType
    shape: tuple[int, ...]
    """Outermost dimension first, as in torch (the file has it the other way round), and with the shape that a converter
    kept in `comfy.gguf.orig_shape.*` because the tensor's own rows are no whole number of blocks."""
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A validated header. The entries lie inside the data section, aligned, without overlap."""

    path: str
    version: int
    tensors: Mapping[str, GgufEntry]
    """In the order of the header."""
    metadata: Mapping[str, Value]
    alignment_bytes: int
    data_start: int
    """Offset of the data section in the file."""
    file_bytes: int
    mtime_ns: int

    @property
    def stamp(self) -> FileStamp:
        return FileStamp(self.file_bytes, self.mtime_ns)


class _Info(NamedTuple):
    """A tensor as it stands in the header, still unchecked. `dims` has the row length first."""

    dims: tuple[int, ...]
    code: int
    start: int


def read_gguf_header(path: str | os.PathLike[str]) -> GgufHeader:
    """The header of `path`. SafetensorsValidationError when it is damaged, or a part of a split model; a file that is
    not there is a SafetensorsLoadError."""
    name = os.fspath(path)
    with open_raw(name) as file:
        stamp = stamp_of(file)
        cursor = GgufCursor(name, file, stamp.size_bytes)
        version = _version(cursor)
        tensor_count, key_count = cursor.u64(), cursor.u64()
        metadata = read_metadata(cursor, key_count, stamp)
        _require_whole(cursor, metadata)
        infos = _infos(cursor, tensor_count)
    alignment = _alignment(name, metadata)
    data_start = -(-cursor.position_bytes // alignment) * alignment
    entries = {key: _entry(name, key, info, metadata, alignment) for key, info in infos.items()}
    _require_disjoint(name, entries, stamp.size_bytes - data_start)
    return GgufHeader(name, version, entries, metadata, alignment, data_start, stamp.size_bytes, stamp.mtime_ns)


def _version(cursor: GgufCursor) -> int:
    if cursor.file_bytes < 4 or cursor.u32() != _MAGIC:
        cursor.fail("does not begin with GGUF; it is another format, or damaged: check the name, or download it again")
    version = cursor.u32()
    if version and version % (1 << 16) == 0:
        cursor.fail("is a big-endian GGUF; convert it to little-endian")
    if version not in _VERSIONS:
        cursor.fail(f"is GGUF version {version}, and only {_VERSIONS} can be read; convert it again")
    return version


def _require_whole(cursor: GgufCursor, metadata: Mapping[str, Value]) -> None:
    """A part of a split model is a valid file, and would pass for a model that lacks most of its tensors."""
    parts, number = metadata.get("split.count"), metadata.get("split.no")
    if type(parts) is int and parts > 1:
        which = f"part {number + 1}" if type(number) is int else "one"
        cursor.fail(f"is {which} of the {parts} files of a split model; join them with llama-gguf-split --merge")


def _infos(cursor: GgufCursor, count: int) -> Mapping[str, _Info]:
    if count > min(MAX_TENSORS, cursor.left_bytes // _SHORTEST_TENSOR_BYTES):
        cursor.damaged(f"header is said to hold {count} tensors")
    infos: dict[str, _Info] = {}
    for _ in range(count):
        key = cursor.text("a tensor's name", _MAX_NAME_BYTES)
        if key in infos:
            cursor.damaged("stands twice in the header", key)
        dimensions = cursor.u32()
        if dimensions > _MAX_DIMENSIONS:
            cursor.damaged(f"is said to have {dimensions} dimensions", key)
        dims = tuple(cursor.u64() for _ in range(dimensions))
        infos[key] = _Info(dims, cursor.u32(), cursor.u64())
    return infos


def _alignment(path: str, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise damaged(path, f"alignment {alignment!r:.40} is no power of two")
    return alignment


def _entry(path: str, key: str, info: _Info, metadata: Mapping[str, Value], alignment: int) -> GgufEntry:
    kind = _BY_CODE.get(info.code)
    if kind is None:
        raise SafetensorsValidationError(path, f"has the unknown type {info.code}; download or convert it again", key)
    row = info.dims[0] if info.dims else 1
    if row % kind.block_elements:
        fault = f"rows of {row} are no whole number of {kind.name} blocks of {kind.block_elements}"
        raise damaged(path, fault, key)
    if info.start % alignment:
        raise damaged(path, f"offset {info.start} is not aligned to {alignment}", key)
    shape = tuple(reversed(info.dims))
    if _extent(shape) > _MAX_ELEMENTS:
        raise damaged(path, f"shape {shape} is impossible", key)
    original = metadata.get(_ORIGINAL_SHAPE + key)
    if original is not None:
        shape = _original_shape(path, key, original, math.prod(shape))
    return GgufEntry(kind, shape, info.start, info.start + kind.nbytes(info.dims))


def _original_shape(path: str, key: str, shape: Value, elements: int) -> tuple[int, ...]:
    if isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS:
        dims = tuple(size for size in shape if type(size) is int and size >= 0)
        if len(dims) == len(shape) and math.prod(dims) == elements and _extent(dims) <= _MAX_ELEMENTS:
            return dims
    fault = f"original shape {shape!r:.80} does not hold its {elements} elements"
    raise damaged(path, fault, key)


def _extent(shape: tuple[int, ...]) -> int:
    return math.prod(max(size, 1) for size in shape)


def _require_disjoint(path: str, entries: Mapping[str, GgufEntry], data_bytes: int) -> None:
    filled = sorted((entry.start, entry.end, key) for key, entry in entries.items() if entry.end > entry.start)
    for (_, end, one), (start, _, other) in pairwise(filled):
        if start < end:
            raise damaged(path, f"shares bytes with {one!r}", other)
    if filled and filled[-1][1] > data_bytes:
        _, end, key = filled[-1]
        reason = f"ends at byte {end} of a data section of {max(data_bytes, 0)}: it is truncated, download it again"
        raise SafetensorsValidationError(path, reason, key)
