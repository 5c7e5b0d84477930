"""LoraStack: the LoRAs of one job in the order in which they are applied.

A LoRA that stands twice in a stack is applied twice: order and both rows are kept, and since patches add up, 0.5 and
0.3 of one file are 0.8 of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

from ..errors import LoraSyntaxError
from ..library.scan import EXTENSIONS
from .request import is_request, read_request
from .row import LoraRow, as_written, shown
from .rows import read_rows, read_tuples
from .tags import COMFY, extract_tags, has_tags, require_syntax
from .vocabulary import NAME_FIELDS, NO_LORA

__all__ = ["LoraRow", "LoraStack", "parse_stack"]

CategoryOf: TypeAlias = "Callable[[str], str | None]"
"""The category of the file that a name means; None where the file is not looked for, see `LoraRow.weights`."""


@dataclass(frozen=True, slots=True)
class LoraStack:
    """Rows in order. Names are as written and not yet resolved; rows switched off are not in it."""

    rows: tuple[LoraRow, ...] = ()

    @property
    def active(self) -> tuple[LoraRow, ...]:
        """Rows with a strength other than zero: those whose file will be read."""
        return tuple(row for row in self.rows if row.is_active)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line per row that holds something without effect."""
        return tuple(row.warning for row in self.rows if row.warning)

    def to_tuples(self) -> list[tuple[str, float, float]]:
        """The LORA_STACK of other packs: (name, strength_model, strength_clip)."""
        return [(row.name, row.strength_model, row.strength_clip) for row in self.rows]

    def in_category(self, category: str) -> LoraStack:
        """Rows without a category get this one."""
        return LoraStack(tuple(row if row.category else replace(row, category=category) for row in self.rows))

    def __add__(self, other: LoraStack) -> LoraStack:
        return LoraStack(self.rows + other.rows)

    def __iter__(self) -> Iterator[LoraRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def from_rows(cls, rows: Iterable[object]) -> LoraStack:
        """From a list of rows; an entry is one of

        - `{"name"|"lora"|"lora_name", "strength_model"|"strength"|"weight", "strength_clip"|"clipStrength"|
          "strengthTwo", "category", "target", "on"|"active"|"enabled"}`: model strength defaults to 1, clip strength to
          model strength;
        - `"name"`; `["name", both]`; `["name", model, clip]`.

        Numbers may be text. Entries switched off, null and "None" are left out. LoraSyntaxError names the row.
        """
        if isinstance(rows, str | bytes | Mapping):
            raise LoraSyntaxError(f"{shown(rows)} is not a list of LoRA rows")
        return cls(read_rows(rows))

    @classmethod
    def from_tuples(cls, stack: Iterable[object] | None) -> LoraStack:
        """From a LORA_STACK, or None for an input that is not connected."""
        return cls(() if stack is None else read_tuples(stack))

    @classmethod
    def from_request(cls, request: object, category_of: CategoryOf | None = None) -> LoraStack:
        """From the request JSON, see `request.py`. `category_of(name)` tells the category of rows that name none."""
        return cls(read_request(request, category_of))

    @classmethod
    def from_tags(cls, text: str, syntax: str = COMFY) -> LoraStack:
        """From the `<lora:...>` tags in `text`, see `tags.py`."""
        return cls(extract_tags(text, syntax)[1])


def parse_stack(text: str, syntax: str = COMFY, *, category_of: CategoryOf | None = None) -> LoraStack:
    """Whatever a person or a program writes into a `loras` input: a JSON list, a request, one row, tags, or one bare
    name, which is what a list of names hands over.

    Blank text, and the "None" of such a list, is the empty stack. Text that is none of these is refused: an empty stack
    would hide the mistake.
    """
    require_syntax(syntax)
    bare = text.strip()
    if not bare or bare.lower() in NO_LORA:
        return LoraStack()
    if bare[0] in "[{":
        try:
            return _from_json(_decode(text), category_of)
        except _NotJsonError as error:
            # A name may begin with a bracket too, "[XL] ink.safetensors", and a prompt: "[cat:dog:0.5] <lora:ink:1>".
            if not has_tags(text) and not _is_file_name(bare):
                raise LoraSyntaxError(str(error)) from error
    if has_tags(text):
        return LoraStack.from_tags(text, syntax)
    if any(mark in bare for mark in "<>\r\n"):
        raise LoraSyntaxError(f'{shown(bare)} is no name, no <lora:name:1> tags, and no JSON list like ["name"]')
    return LoraStack((LoraRow(as_written(text)),))


def _is_file_name(text: str) -> bool:
    """Unlike the beginning of broken JSON, which has quotes, or lines."""
    return text.lower().endswith(tuple(EXTENSIONS)) and not any(mark in text for mark in '<>\r\n"')


class _NotJsonError(ValueError):
    pass


def _from_json(value: object, category_of: CategoryOf | None) -> LoraStack:
    if isinstance(value, Mapping) and not is_request(value) and any(field in value for field in NAME_FIELDS):
        return LoraStack.from_rows([value])
    return LoraStack.from_rows(value) if isinstance(value, list) else LoraStack.from_request(value, category_of)


def _decode(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 15) : error.pos + 15]
        where = f"line {error.lineno}, column {error.colno}, near {shown(near)}"
        # What the host makes of an object or a list that was posted in place of a text.
        posted = text.lstrip().lstrip("[{").startswith("'")
        cure = "; send it as one JSON text, not as an object or a list" if posted else ""
        raise _NotJsonError(f"the JSON is broken at {where}: {error.msg}{cure}") from error
    except (ValueError, RecursionError) as error:
        raise LoraSyntaxError(f"the JSON cannot be read: {shown(str(error))}") from error


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
