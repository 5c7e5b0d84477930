"""LoRAs named inside texts: `<lora:name:0.8>` tags in prompts, and the stack texts of our own nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...lora.errors import LoraSyntaxError
from ...lora.stacks.stack import LoraRow, LoraStack, parse_stack
from ...lora.stacks.tags import COMFY, extract_tags, has_tags
from ..queue.job import LoraReference
from .graph import Computed, Node
from .shapes import Found, active, unknown
from .values import MAX_TEXT_CHARS, name_in

_TAG = re.compile(r"<(?:lora|lyco):[^<>\r\n]*>", re.IGNORECASE)
_WILDCARD = re.compile(r"__[\w.+*/\\-]{1,128}__")


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags in the texts `keys`. `expanded` texts may still hold `{a|b}` choices and wildcards, drawn at run time."""

    keys: tuple[str, ...] = ("text",)
    switches: tuple[str, ...] = ()
    syntax: str = ""
    """Input that says in which order a tag holds its numbers, where the node has one; else model, then clip."""
    expanded: bool = False
    via_cache: bool = False

    def read(self, node: Node) -> Iterator[Found]:
        if active(node, self.switches) is False:
            return
        for key in self.keys:
            text = node.value(key)
            if isinstance(text, Computed):
                yield unknown(node, f"its text comes from {text.source}")
            elif isinstance(text, str):
                yield from self._in_text(node, text)

    def _in_text(self, node: Node, text: str) -> Iterator[Found]:
        certain, drawn = _without_choices(text) if self.expanded else (text, "")
        syntax = node.value(self.syntax) if self.syntax in node.inputs else COMFY
        if isinstance(syntax, Computed):
            # It decides which number is which, and not which files are read.
            yield from map(_without_strengths, tag_references(node, certain, via_cache=self.via_cache))
        else:
            yield from tag_references(node, certain, syntax=str(syntax), via_cache=self.via_cache)
        if has_tags(drawn):
            yield unknown(node, "a random choice in its text")
        if self.expanded and "__" in text and _WILDCARD.search(re.sub(r"<[^<>]{1,512}>", "", text[:MAX_TEXT_CHARS])):
            yield unknown(node, "a wildcard in its text")


@dataclass(frozen=True, slots=True)
class StackText:
    """Our own inputs: JSON rows, a request or tags; read by the very parser that the node uses."""

    key: str = "loras"
    category: str = ""
    """Input with the category of the rows that have none of their own."""

    def read(self, node: Node) -> Iterator[Found]:
        value = node.value(self.key)
        if isinstance(value, Computed):
            yield unknown(node, f"{self.key!r} comes from {value.source}")
            return
        if not isinstance(value, str):
            yield unknown(node, f"{self.key!r} is no text; send a list or a request as one JSON text")
            return
        if len(value) > MAX_TEXT_CHARS:
            yield unknown(node, f"a text of {len(value)} characters")
            return
        try:
            stack = parse_stack(value, category_of=_not_looked_for)
        except LoraSyntaxError as error:
            yield unknown(node, str(error))
        except RecursionError:
            yield unknown(node, f"{self.key!r} is nested too deeply")
        else:
            category = node.value(self.category) if self.category else None
            if isinstance(category, str):
                stack = stack.in_category(category)
            yield from stack_references(stack, node_id=node.node_id, class_type=node.class_type)


def stack_references(stack: LoraStack, *, node_id: str = "", class_type: str = "") -> Iterator[LoraReference]:
    """The active rows of a stack that one of our own readers will acquire."""
    for row in stack.active:
        yield _reference(row, node_id, class_type, via_cache=True, guessed=False)


def tag_references(
    node: Node, text: str, *, syntax: str = COMFY, via_cache: bool = False, guessed: bool = False
) -> Iterator[Found]:
    """Tags of `text` whose strengths are not both zero."""
    if "<" not in text or not has_tags(text):
        return
    if len(text) > MAX_TEXT_CHARS:
        yield unknown(node, f"a text of {len(text)} characters")
        return
    # One at a time: packs skip a tag that they cannot read and load the others.
    for tag in _TAG.findall(text):
        try:
            rows = extract_tags(tag, syntax)[1]
        except LoraSyntaxError as error:
            yield unknown(node, str(error))
            continue
        for row in rows:
            # Our own node asks for whatever a tag names.
            if row.is_active and (via_cache or name_in(row.name)):
                yield _reference(row, node.node_id, node.class_type, via_cache=via_cache, guessed=guessed)


def _reference(row: LoraRow, node_id: str, class_type: str, *, via_cache: bool, guessed: bool) -> LoraReference:
    strengths = row.strength_model, row.strength_clip
    return LoraReference(row.name, *strengths, node_id, class_type, via_cache, guessed, row.category, row.weights)


def _without_strengths(found: Found) -> Found:
    return replace(found, strength_model=None, strength_clip=None) if isinstance(found, LoraReference) else found


def _not_looked_for(name: str) -> None:
    """The category of a file is known where its name is looked up in the catalog, which changes while a job waits."""


def _without_choices(text: str) -> tuple[str, str]:
    """`text` outside and inside of `{...}`."""
    if "{" not in text:
        return text, ""
    depth = 0
    parts: tuple[list[str], list[str]] = ([], [])
    for part in re.split(r"([{}])", text[: MAX_TEXT_CHARS + 1]):
        if part == "{":
            depth += 1
        elif part == "}":
            depth = max(0, depth - 1)
        else:
            parts[depth > 0].append(part)
    return "".join(parts[0]), " ".join(parts[1])
