"""Sharded checkpoints: the index that says which file holds which tensor, and whether the files agree."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SafetensorsLoadError, SafetensorsValidationError
from ..reading.opened import OpenFiles, open_raw, reading, stamp_of, unreadable
from .header import MAX_HEADER_BYTES, SafetensorsHeader, read_header
from .other_formats import GGUF_SUFFIX, PICKLE_SUFFIXES
from .strict_json import DuplicateKeyError, few_numbers, has_too_many_parts, unique_object

INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """`model.safetensors.index.json`, read and checked for itself; `check_shards` compares it with the files."""

    path: str
    weight_map: Mapping[str, str]
    """key -> file name beside the index."""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the shards, in the order of their names."""
        folder = os.path.dirname(self.path)
        return tuple(os.path.join(folder, name) for name in sorted(set(self.weight_map.values())))


def read_index(path: str | os.PathLike[str]) -> ShardIndex:
    """The index at `path`. SafetensorsValidationError when it is no index, names a key twice or a file outside its
    folder."""
    name = os.fspath(path)
    with open_raw(name) as file:
        if stamp_of(file).size_bytes > MAX_HEADER_BYTES:
            raise SafetensorsValidationError(name, "is too large for an index")
        with reading(name):
            raw = file.readall()
    if has_too_many_parts(raw):
        raise SafetensorsValidationError(name, "lists more than 500,000 tensors, or is no index; download it again")
    try:
        document = json.loads(
            raw,
            object_pairs_hook=unique_object,
            parse_float=few_numbers(float, len(raw)),
            parse_int=few_numbers(int, len(raw)),
        )
    except DuplicateKeyError as error:
        raise SafetensorsValidationError(name, "stands twice in the index; download it again", error.key) from error
    except (ValueError, RecursionError) as error:
        raise SafetensorsValidationError(name, f"is not a valid index ({error}); download it again") from error
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise SafetensorsValidationError(name, "has no weight_map; it is not an index of shards")
    for key, shard in weight_map.items():
        _check_name(name, key, shard)
    return ShardIndex(name, weight_map)


def check_shards(
    files: Sequence[str], index: ShardIndex | None = None, *, opened: OpenFiles | None = None
) -> dict[str, SafetensorsHeader]:
    """path -> header of `files`, read before any weight is.

    SafetensorsValidationError when a shard is missing, a key stands in two files, or the files and `index` disagree;
    SafetensorsLoadError when a file is named twice; ValueError without files.
    The total size of an index is not checked: writers of the field differ in what they count."""
    paths = require_files(files)
    headers = {path: _shard_header(path, index, opened) for path in paths}
    check_keys({path: header.tensors for path, header in headers.items()}, index)
    return headers


def require_files(files: Sequence[str]) -> list[str]:
    """`files`; ValueError when there are none, SafetensorsLoadError when one is named twice."""
    paths = list(files)
    if not paths:
        raise ValueError("nothing to load; name the files or their index")
    _require_once(paths)
    return paths


def check_keys(keys: Mapping[str, Iterable[str]], index: ShardIndex | None) -> None:
    """SafetensorsValidationError when a key stands in two files, or `keys` (path -> keys) and `index` disagree."""
    owners: dict[str, str] = {}
    for path, its in keys.items():
        for key in its:
            if key in owners:
                other = os.path.basename(owners[key])
                raise SafetensorsValidationError(path, f"stands in {other} too; remove one", key)
            owners[key] = path
    if index is not None:
        _check_owners(index, owners)


def require_present(path: str, index: ShardIndex | None) -> None:
    """SafetensorsValidationError when a shard of `index` is not there."""
    if index is not None and not os.path.isfile(path):
        raise _at_fault(index, path, "is missing; download that file")


def _require_once(paths: Sequence[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        try:
            place = os.path.realpath(path)
        except ValueError as error:
            raise unreadable(path, error) from error
        if place in seen:
            raise SafetensorsLoadError(path, "is named twice, perhaps through a link; name each file once")
        seen.add(place)


def _check_name(path: str, key: str, shard: object) -> None:
    if not isinstance(shard, str) or not shard or "\0" in shard or _has_half_a_pair(shard):
        raise SafetensorsValidationError(path, "names no file", key)
    parts = shard.replace("\\", "/").split("/")
    # By the text alone: a hub cache holds its shards as links to another folder, and those are fine.
    if os.path.isabs(shard) or parts[0] == "" or ".." in parts or ":" in parts[0]:
        raise SafetensorsValidationError(path, f"names {shard!r}, which is outside the folder of the index", key)


def _has_half_a_pair(text: str) -> bool:
    """True for what JSON can write and UTF-8 cannot: no log and no terminal would take the error that names it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _shard_header(path: str, index: ShardIndex | None, opened: OpenFiles | None) -> SafetensorsHeader:
    if path.lower().endswith((*PICKLE_SUFFIXES, GGUF_SUFFIX)):
        fault = "is no safetensors file; convert it to safetensors"
        if index is None:
            raise SafetensorsLoadError(path, f"{fault}, or load it with load_checkpoint")
        raise _at_fault(index, path, fault)
    require_present(path, index)
    return read_header(path, opened=opened)


def _at_fault(index: ShardIndex, path: str, fault: str) -> SafetensorsValidationError:
    place = os.path.realpath(path)
    key = next((key for key, shard in index.weight_map.items() if _place(index, shard) == place), "")
    return SafetensorsValidationError(index.path, f"is in {os.path.basename(path)}, which {fault}", key)


def _place(index: ShardIndex, shard: str) -> str:
    """Where the shard really is: the caller may reach it through another folder."""
    return os.path.realpath(os.path.join(os.path.dirname(index.path), shard))


def _check_owners(index: ShardIndex, owners: Mapping[str, str]) -> None:
    stated = {shard: _place(index, shard) for shard in set(index.weight_map.values())}
    places = {path: os.path.realpath(path) for path in set(owners.values())}
    for key, shard in index.weight_map.items():
        if key not in owners:
            raise SafetensorsValidationError(index.path, f"is in no shard, {shard} should have it", key)
        if places[owners[key]] != stated[shard]:
            actual = os.path.basename(owners[key])
            raise SafetensorsValidationError(index.path, f"is in {actual} and not in {shard}", key)
    unlisted = next((key for key in owners if key not in index.weight_map), None)
    if unlisted is not None:
        shard = os.path.basename(owners[unlisted])
        raise SafetensorsValidationError(index.path, f"is in {shard} and not in the index", unlisted)
