"""The safetensors header: read, validated, and nothing else of the file touched. Needs no torch."""

from __future__ import annotations

import codecs
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from itertools import chain, count
from typing import Any, NoReturn

from ..errors import SafetensorsValidationError, damaged
from ..reading.filling import read_at
from ..reading.opened import FileStamp, OpenFiles, open_raw, stamp_of
from ..system.breather import Breather
from .plain_header import METADATA, METADATA_FIRST, plain_content
from .strict_json import DuplicateKeyError, few_numbers, has_too_many_parts, unique_object
from .tensor_entry import TensorEntry, stored_bytes

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")

MAX_HEADER_BYTES = 100_000_000
"""The bound of the safetensors library itself: a longer header is refused before a byte of it is read."""

_LENGTH = struct.Struct("<Q")
_METADATA_PEEK_BYTES = 1 << 16

_BREATH_ENTRIES = 128


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A validated header. The entries cover the data section without gap or overlap, in this order."""

    path: str
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int
    """Offset of the data section in the file."""
    file_bytes: int
    mtime_ns: int

    @property
    def data_bytes(self) -> int:
        return self.file_bytes - self.data_start

    @property
    def stamp(self) -> FileStamp:
        return FileStamp(self.file_bytes, self.mtime_ns)


_Fields = tuple[Any, Any, Any]
"""dtype, shape and data_offsets of one entry, still unchecked. JSON has no tuples, so nothing else looks like it."""


def read_header(path: str | os.PathLike[str], *, opened: OpenFiles | None = None) -> SafetensorsHeader:
    """The header of `path`, or SafetensorsValidationError; a file that is not there is a SafetensorsLoadError."""
    name = os.fspath(path)
    with open_raw(name, opened) as file:
        stamp = stamp_of(file)
        length = _header_length(name, file, stamp.size_bytes)
        raw = bytearray(length)
        read_at(name, file, memoryview(raw), _LENGTH.size)
    data_start = _LENGTH.size + length
    metadata, tensors = _content(name, raw, stamp.size_bytes - data_start)
    if b"\\u" in raw:
        _require_unicode(name, chain(tensors, metadata.keys(), metadata.values()))
    return SafetensorsHeader(name, tensors, metadata, data_start, stamp.size_bytes, stamp.mtime_ns)


def read_metadata(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """The `__metadata__` of `path`. Where it stands first, as every known writer puts it, the tensors are not parsed,
    so their entries may still be invalid."""
    name = os.fspath(path)
    with open_raw(name) as file:
        length = _header_length(name, file, stamp_of(file).size_bytes)
        raw = bytearray(min(length, _METADATA_PEEK_BYTES))
        read_at(name, file, memoryview(raw), _LENGTH.size)
    block = _leading_metadata(raw)
    if block is None:
        return read_header(name).metadata
    metadata = _metadata(name, block)
    _require_unicode(name, chain(metadata.keys(), metadata.values()))
    return metadata


def _header_length(path: str, file: FileIO, file_bytes: int) -> int:
    if file_bytes < _LENGTH.size:
        raise SafetensorsValidationError(
            path, f"{file_bytes} bytes are too few for a safetensors file; download it again"
        )
    prefix = bytearray(_LENGTH.size)
    read_at(path, file, memoryview(prefix), 0)
    length: int = _LENGTH.unpack(prefix)[0]
    if length > MAX_HEADER_BYTES:
        raise SafetensorsValidationError(
            path, f"claims a header of {length} bytes; it is no safetensors file (a saved web page?), download it again"
        )
    if length > file_bytes - _LENGTH.size:
        raise SafetensorsValidationError(
            path, f"claims a header of {length} bytes and is only {file_bytes} long; it is truncated, download it again"
        )
    return length


def _content(path: str, raw: bytearray, data_bytes: int) -> tuple[Mapping[str, str], dict[str, TensorEntry]]:
    """Metadata and tensors, in the order of their data."""
    if has_too_many_parts(raw):
        reason = "header lists more than 160,000 tensors, or is none; save the model in shards, or download it again"
        raise SafetensorsValidationError(path, reason)
    found = plain_content(path, raw)
    if found is not None:
        block, tensors = found
    else:
        document = _parse(path, raw)
        block = document.pop(METADATA, None)
        tensors = _tensors(path, document)
    return _metadata(path, block), _in_data_order(path, tensors, data_bytes)


def _parse(path: str, raw: bytearray) -> dict[str, Any]:
    try:
        document = _decoder(Breather(), len(raw)).decode(raw.decode("utf-8"))
    except DuplicateKeyError as error:
        raise damaged(path, "stands twice in the header", error.key) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"header is not valid JSON ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise damaged(path, "header is not a JSON object")
    return document


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fields:
    if len(pairs) == 3:
        (first, dtype), (second, shape), (third, offsets) = pairs
        if first == "dtype" and second == "shape" and third == "data_offsets":
            return dtype, shape, offsets
    return unique_object(pairs)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _decoder(breather: Breather, text_bytes: int) -> json.JSONDecoder:
    steps = count(1)

    def convert(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fields:
        if next(steps) % _BREATH_ENTRIES == 0:
            breather.breathe()
        return _json_object(pairs)

    # Floats become bytes, which nothing here accepts: 1.0 must pass neither for the dimension 1 nor for metadata text.
    return json.JSONDecoder(
        object_pairs_hook=convert,
        parse_constant=_refuse_constant,
        parse_float=few_numbers(str.encode, text_bytes),
        parse_int=few_numbers(int, text_bytes),
    )


def _metadata(path: str, block: Any) -> Mapping[str, str]:
    if block is None:
        return {}
    if type(block) is tuple:
        # Text under exactly the three names of an entry is metadata all the same.
        block = dict(zip(("dtype", "shape", "data_offsets"), block, strict=True))
    if not isinstance(block, dict) or not all(isinstance(value, str) for value in block.values()):
        raise SafetensorsValidationError(
            path, "must map text to text; the file was written by a broken tool, save it again by another", METADATA
        )
    return block


def _leading_metadata(raw: bytearray) -> Any | None:
    try:
        # The incremental decoder leaves a character that the peek cut in two alone.
        text = codecs.getincrementaldecoder("utf-8")().decode(bytes(raw))
        start = METADATA_FIRST.match(text)
        return _decoder(Breather(), len(raw)).raw_decode(text, start.end())[0] if start else None
    except (ValueError, RecursionError):
        return None


def _tensors(path: str, document: Mapping[str, Any]) -> dict[str, TensorEntry]:
    sizes: dict[tuple[str, tuple[int, ...]], int] = {}
    tensors: dict[str, TensorEntry] = {}
    numbers: list[int] = []
    breather = Breather()
    for step, (key, value) in enumerate(document.items()):
        if step % _BREATH_ENTRIES == 0:
            breather.breathe()
        dtype, shape, offsets = value if type(value) is tuple else _fields(path, key, value)
        try:
            if type(shape) is not list:
                raise TypeError(shape)
            start, end = offsets
            kind = (dtype, tuple(shape))
            size_bytes = sizes.get(kind)
            if size_bytes is None:
                size_bytes = sizes[kind] = stored_bytes(path, key, *kind)
            span_bytes = end - start
        except (TypeError, ValueError) as error:
            raise damaged(path, "needs a dtype, a shape and two data_offsets", key) from error
        if span_bytes != size_bytes:
            raise damaged(path, f"{dtype} {shape[:8]} needs {size_bytes} bytes, its offsets span {span_bytes}", key)
        tensors[key] = TensorEntry(dtype, kind[1], start, end)
        numbers += shape
        numbers += offsets
    _require_integers(path, tensors, numbers)
    return tensors


def _fields(path: str, key: str, value: Any) -> _Fields:
    if not isinstance(value, dict):
        raise damaged(path, "is not a tensor entry", key)
    return value.get("dtype"), value.get("shape"), value.get("data_offsets")


def _require_integers(path: str, tensors: Mapping[str, TensorEntry], numbers: list[int]) -> None:
    """Refuse true and false, which equal 1 and 0 for Python and slip through every comparison."""
    if set(map(type, numbers)) <= {int}:
        return
    key = next(key for key, (_, shape, *span) in tensors.items() if bool in map(type, chain(shape, span)))
    raise damaged(path, "shape and data_offsets must be whole numbers", key)


def _in_data_order(path: str, tensors: dict[str, TensorEntry], data_bytes: int) -> dict[str, TensorEntry]:
    _, _, starts, ends = zip(*tensors.values(), strict=True) if tensors else ((),) * 4
    if (*starts, data_bytes) == (0, *ends):
        return tensors
    ordered = dict(sorted(tensors.items(), key=_span))
    covered = 0
    for key, (_, _, start, end) in ordered.items():
        if start != covered:
            fault = "overlaps another tensor" if start < covered else "leaves a gap before it"
            raise damaged(path, f"data_offsets [{start}, {end}]: {fault}", key)
        covered = end
    if covered != data_bytes:
        # Where the end of the file has gone, the first tensor that lost bytes.
        lost = next((key for key, (_, _, _, end) in ordered.items() if end > data_bytes), "")
        fault = "the file is truncated" if lost else "no tensor covers the rest, the file is damaged"
        reason = f"tensors take {covered} bytes of a data section of {data_bytes}: {fault}, download it again"
        raise SafetensorsValidationError(path, reason, lost)
    return ordered


def _span(item: tuple[str, TensorEntry]) -> tuple[int, int]:
    return item[1][2:]


def _require_unicode(path: str, texts: chain[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise damaged(path, "header holds half a surrogate pair") from error
