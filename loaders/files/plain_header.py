"""A header as every known writer puts it down: metadata first, no spaces, no escapes in a key. It is a table then, read
column by column in half of the time that a parser takes for it. Anything else, faults above all, is left to the parser.
"""

from __future__ import annotations

import json
import re
from functools import partial
from operator import sub

from ..errors import SafetensorsValidationError
from ..system.breather import Breather
from .tensor_entry import TensorEntry, stored_bytes

METADATA = "__metadata__"
_SPACE = r"[ \t\n\r]*"
METADATA_FIRST = re.compile(rf'{_SPACE}\{{{_SPACE}"{METADATA}"{_SPACE}:{_SPACE}')
_TEXTS_BEGIN = re.compile(rf'\{{{_SPACE}((?=")|\}})')
_TEXT_BEGINS = re.compile(rf'{_SPACE}:{_SPACE}(?=")')
_TEXTS_GO_ON = re.compile(rf'{_SPACE}(,{_SPACE}(?=")|\}})')
_BREATH_TEXTS = 128

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_BETWEEN = '","shape":['
_VALUES = re.compile(
    rf'":\{{"dtype":"([A-Z0-9_]+{re.escape(_BETWEEN)}[0-9,]*)\],"data_offsets":\[({_NUMBER}),({_NUMBER})\]\}}'
    r'(?:,"(?!\Z)|\Z)'
)
"""What stands between two keys: dtype and shape; start; end."""
_ENTRY_ENDS = '},"'
_NOT_IN_KEYS = bytes(range(0x20)) + b'"\\'
_SHAPE = re.compile(rf"(?:{_NUMBER}(?:,{_NUMBER})*)?")
_entry_of = partial(tuple.__new__, TensorEntry)
"""As `TensorEntry._make`, which is Python and takes half as long again."""
_STRETCH_CHARS = 1 << 16
"""Read at once: the interpreter changes hands only between two such, and no more is made of a text that is no table."""


def plain_content(path: str, raw: bytearray) -> tuple[dict[str, str] | None, dict[str, TensorEntry]] | None:
    """The metadata block and the tensors, each of the size that its shape takes; None when the parser has to look."""
    try:
        text = raw.decode("utf-8").rstrip(" \t\n\r")
        start = METADATA_FIRST.match(text)
        block, end = _metadata(text, start.end()) if start else (None, 0)
        if text[end] == ("," if start else "{") and text[-1] == "}":
            return block, _tensors(path, text, end + 1, len(text) - 1)
    except (ValueError, RecursionError, IndexError, SafetensorsValidationError):
        pass
    return None


def _metadata(text: str, at: int) -> tuple[dict[str, str], int]:
    """The object of texts at `at`, and where it ends. ValueError for any other, before its values are made."""
    opened = _TEXTS_BEGIN.match(text, at)
    if opened is None:
        raise ValueError("not an object of texts")
    block: dict[str, str] = {}
    breather = Breather()
    end, more = opened.end(), opened[1] != "}"
    text_at = json.JSONDecoder().raw_decode
    while more:
        if len(block) % _BREATH_TEXTS == 0:
            breather.breathe()
        key, end = text_at(text, end)
        colon = _TEXT_BEGINS.match(text, end)
        if colon is None or key in block:
            raise ValueError("not an object of texts, each under a key of its own")
        block[key], end = text_at(text, colon.end())
        following = _TEXTS_GO_ON.match(text, end)
        if following is None:
            raise ValueError("not an object of texts")
        end, more = following.end(), following[1] != "}"
    return block, end


def _tensors(path: str, text: str, begin: int, end: int) -> dict[str, TensorEntry]:
    """The entries of `text[begin:end]`. ValueError when it is no table of them."""
    tensors: dict[str, TensorEntry] = {}
    kinds = _Kinds(path)
    breather = Breather()
    count = 0
    while begin < end:
        breather.breathe()
        stop = end
        if end - begin > _STRETCH_CHARS:
            stop = text.rindex(_ENTRY_ENDS, begin, begin + _STRETCH_CHARS) + 1
        *fields, rest = _VALUES.split(text[begin + 1 : stop])
        keys, names, firsts, lasts = (fields[column::4] for column in range(4))
        if text[begin] != '"' or rest or not _are_plain("".join(keys)):
            raise ValueError("not an entry")
        dtypes, shapes, sizes = zip(*map(kinds.__getitem__, names), strict=True)
        starts, ends = list(map(int, firsts)), list(map(int, lasts))
        if tuple(map(sub, ends, starts)) != sizes:
            raise ValueError("an entry of another size")
        tensors.update(zip(keys, map(_entry_of, zip(dtypes, shapes, starts, ends, strict=True)), strict=True))
        count += len(keys)
        # Behind the comma, which was seen if there is more.
        begin = stop + 1
    if len(tensors) != count or METADATA in tensors:
        raise ValueError("a key that stands twice, or is no tensor's")
    return tensors


def _are_plain(keys: str) -> bool:
    raw = keys.encode("utf-8")
    return len(raw.translate(None, _NOT_IN_KEYS)) == len(raw)


class _Kinds(dict[str, tuple[str, tuple[int, ...], int]]):
    """dtype and shape as they are written -> both, and the bytes of such a tensor. A model has few."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __missing__(self, name: str) -> tuple[str, tuple[int, ...], int]:
        dtype, _, dims = name.partition(_BETWEEN)
        if not _SHAPE.fullmatch(dims):
            raise ValueError("not a shape")
        shape = tuple(map(int, dims.split(","))) if dims else ()
        found = self[name] = dtype, shape, stored_bytes(self._path, "", dtype, shape)
        return found
