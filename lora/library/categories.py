"""Categories: the folder that a person put the file into, else what the trainer wrote into the header.

A category is the whole folder path below the LoRA folder, `characters/anime`. Filters and weights for `characters`
cover everything below it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .spelling import folded, with_slashes

_WORDS = {
    "style": "styles", "styles": "styles", "artstyle": "styles",
    "character": "characters", "characters": "characters",
    "concept": "concepts", "concepts": "concepts",
    "clothing": "clothing", "clothes": "clothing", "outfit": "clothing", "outfits": "clothing",
    "pose": "poses", "poses": "poses",
    "background": "backgrounds", "backgrounds": "backgrounds",
    "celebrity": "people", "person": "people", "people": "people",
    "slider": "sliders", "sliders": "sliders",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+")
_MAX_TEXT_CHARS = 1 << 20
_SHOWN_CHARS = 60


class Category(NamedTuple):
    """`name` is "" when nothing tells; `evidence` says what did, for a person."""

    name: str = ""
    evidence: str = ""


def folder_category(name: str) -> Category:
    """Of a catalog name: `characters/anime/mia.safetensors` is in `characters/anime`."""
    folder = name.rpartition("/")[0]
    return Category(folder, f"folder {folder}/") if folder else Category()


def metadata_category(metadata: Mapping[str, str]) -> Category:
    """From the first field that names exactly one known category; two that differ in one field are no evidence."""
    for field, texts in _fields(metadata):
        found = {_WORDS[word]: text for text in texts for word in _WORD.findall(text.lower()) if word in _WORDS}
        if len(found) == 1:
            category, text = found.popitem()
            return Category(category, f"metadata {field} = {text.strip()[:_SHOWN_CHARS]}")
    return Category()


def covers(category: str, other: str) -> bool:
    """True when `other` is `category` or lies below it, as categories are compared."""
    wanted = category_key(category)
    return not wanted or f"{category_key(other)}/".startswith(f"{wanted}/")


def category_key(category: str) -> str:
    """`category` as it is compared: case, either slash, outer ones and how accents are written do not matter."""
    return folded(with_slashes(category.strip("\\/ ")))


def _fields(metadata: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    yield "modelspec.tags", metadata.get("modelspec.tags", "").split(",")
    yield "ss_tag_frequency", _dataset_folders(metadata.get("ss_tag_frequency", ""))
    yield "modelspec.title", [metadata.get("modelspec.title", "")]
    yield "ss_output_name", [metadata.get("ss_output_name", "")]


def _dataset_folders(text: str) -> list[str]:
    """The data set folders (`10_ink style`). Captions are no evidence: most styles were trained on people."""
    if len(text) > _MAX_TEXT_CHARS:
        return []
    try:
        folders = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return []
    return list(folders) if isinstance(folders, dict) else []
