"""What an input value means to a LoRA loader: a name, a strength, a switch. Total functions: any JSON value goes in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from ...lora.stacks.vocabulary import NO_LORA, OFF

MAX_NAME_CHARS = 1024
MAX_TEXT_CHARS = 64 * 1024
"""Longer texts are reported as unknown: scanning them would hold the event loop."""

MAX_ROWS = 200
"""Rows read of one list; no node loads more, and a longer list is an attack on the event loop."""

# Widgets of other packs, beside our own words.
_NOT_NAMES = NO_LORA | {"", "null", "undefined", "strength", "select lora", "-"}
_OFF_WORDS = OFF | {"", "disable", "disabled", "disable loras"}


def name_in(value: object) -> str | None:
    """A LoRA name, or None for all that stands for none. Old widgets post `{"content": name, "image": ...}`."""
    if isinstance(value, dict):
        value = value.get("content")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS:
        return None
    word = value.strip().casefold()
    return None if word in _NOT_NAMES or word.startswith("select the lora") else value


def number_in(value: object) -> float | None:
    """A finite number, also from a string; of a list (strength per step) the first that is not zero; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, list):
        numbers = [number_in(item) for item in value[:256] if not isinstance(item, list)]
        return next((number for number in numbers if number != 0.0), 0.0) if numbers else None
    if not isinstance(value, int | float | str) or (isinstance(value, str) and len(value) > 64):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_on(value: object) -> bool:
    """True unless the value says off; an absent switch is on."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().casefold() not in _OFF_WORDS
    return not (isinstance(value, int | float) and value == 0)


def parsed(value: object) -> object:
    """The JSON inside a string, or the value itself when it is none."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def first_of(entry: Mapping[str, object], fields: tuple[str, ...]) -> object:
    """The value of the first of `fields` that `entry` fills."""
    return next((entry[field] for field in fields if entry.get(field) is not None), None)
