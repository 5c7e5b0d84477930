"""Generic rules for classes that the table does not know; whatever they find is a guess until the catalog knows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...lora.stacks.tags import has_tags
from ...lora.stacks.vocabulary import FOREIGN_NAME_FIELDS
from .graph import Node, is_link
from .shapes import Found, entry, named
from .texts import tag_references
from .values import MAX_ROWS, MAX_TEXT_CHARS, is_on, number_in, parsed

MAX_DEPTH = 4

_NAME_FIELDS = frozenset(FOREIGN_NAME_FIELDS)
_PLAIN = frozenset({int, float, bool, type(None)})

_INDEX = re.compile(r"(\d{1,4})\D*$")
_COUNT_KEY = re.compile(r"count|^num|_num", re.IGNORECASE)
_SWITCH_KEY = re.compile(r"switch|enable|toggle|active|(^|_)on(_|$)", re.IGNORECASE)
_STRENGTH_KEY = re.compile(r"strength|weight|(^|_)(wt|str)(_|$)", re.IGNORECASE)


class Generic:
    """The shape of a class that nobody has described."""

    def read(self, node: Node) -> Iterator[Found]:
        """Row objects, JSON strings, tags, and strings under a LoRA-like key."""
        return _read(node)


def _read(node: Node) -> Iterator[Found]:
    if _whole_node_is_off(node):
        return
    siblings: _Siblings | None = None
    for key, raw in node.inputs.items():
        if type(raw) in _PLAIN:
            continue
        if isinstance(raw, dict) or (isinstance(raw, list) and not is_link(raw)):
            yield from _in_rows(node, raw, 0)
            continue
        lora_like = _names_loras(key)
        # Value nodes behind a link are read for themselves too: only a LoRA-like key makes a link worth following.
        text = raw if isinstance(raw, str) else node.value(key) if lora_like else None
        if not isinstance(text, str):
            continue
        if "<" in text and has_tags(text[:MAX_TEXT_CHARS]):
            yield from tag_references(node, text, guessed=True)
        elif not isinstance(value := parsed(text), str):
            yield from _in_rows(node, value, 0)
        elif lora_like:
            siblings = siblings or _Siblings.of(node)
            index = _index_of(key)
            if siblings.has_active(index):
                yield from named(node, text, *siblings.strengths_of(index), guessed=True)


def _names_loras(key: str) -> bool:
    lowered = key.lower()
    return ("lora" in lowered or "lyco" in lowered) and not _STRENGTH_KEY.search(key)


def _in_rows(node: Node, value: object, depth: int) -> Iterator[Found]:
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        # Options of all kinds come this way: most name nothing, and are told by their keys alone.
        if not _NAME_FIELDS.isdisjoint(value) and any(isinstance(value.get(name), str) for name in _NAME_FIELDS):
            yield from entry(node, value, guessed=True)
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value[:MAX_ROWS]:
            if item and isinstance(item, (list, dict)):
                yield from _in_rows(node, item, depth + 1)


@dataclass(slots=True)
class _Siblings:
    """What the other inputs of a node say about its numbered rows, gathered in one pass."""

    counts: list[float] = field(default_factory=list)
    select: float | None = None
    off: set[int] = field(default_factory=set)
    strengths: dict[int | None, list[tuple[str, float | None]]] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node) -> _Siblings:
        found = cls()
        for key, value in node.inputs.items():
            index, number = _index_of(key), number_in(value)
            if _STRENGTH_KEY.search(key):
                found.strengths.setdefault(index, []).append((key, number))
            elif index is not None and _SWITCH_KEY.search(key) and not is_on(value):
                found.off.add(index)
            elif index is None and number is not None and _COUNT_KEY.search(key):
                found.counts.append(number)
            elif key.lower() == "select":
                found.select = number
        return found

    def has_active(self, index: int | None) -> bool:
        strengths = [strength for _, strength in self.strengths.get(index, ())]
        if strengths and all(strength == 0.0 for strength in strengths):
            return False
        return index is None or not (
            index in self.off
            or any(index > count for count in self.counts)
            or (self.select is not None and self.select != index)
        )

    def strengths_of(self, index: int | None) -> tuple[float | None, float | None]:
        """(model, clip); one strength serves both, several are told apart by the word clip."""
        listed = self.strengths.get(index, [])
        clip = next((strength for key, strength in listed if "clip" in key.lower()), None)
        model = next((strength for key, strength in listed if "clip" not in key.lower()), None)
        return model, model if clip is None else clip


def _whole_node_is_off(node: Node) -> bool:
    for key, value in node.inputs.items():
        if value is True and key == "bypass":
            return True
        off = value is False or (type(value) is str and len(value) < 16 and not is_on(value))
        if off and _SWITCH_KEY.search(key) and _index_of(key) is None:
            return True
    return False


def _index_of(key: str) -> int | None:
    match = _INDEX.search(key)
    return int(match[1]) if match else None
