"""`<lora:name:a:b>` in prompts. Two dialects write the same tag and mean different things:

=========================  ==========================  ==============================
tag                        "comfy" (ComfyUI packs)     "a1111" (A1111, Forge, SD.Next)
=========================  ==========================  ==============================
`<lora:x>`                 model 1, clip 1             TE 1, UNet 1
`<lora:x:0.8>`             model 0.8, clip 0.8         TE 0.8, UNet 0.8
`<lora:x:0.8:0.4>`         model 0.8, clip 0.4         TE 0.8, UNet 0.4
`<lora:x:0.8:0.4:16>`      refused                     and rank 16: kept out, warned
`<lora:x:te=0.5:unet=1>`   model 1, clip 0.5           TE 0.5, UNet 1
`<lora:x:te=0.5>`          model 1, clip 0.5           TE 0.5, UNet 0.5
=========================  ==========================  ==============================

UNet is `strength_model`, TE is `strength_clip`. `<lyco:...>` is the same tag. Names may hold dots, spaces and folders,
never `<`, `>`, `:` or a line break. Block weights (`LBW=...`, a preset, a list of numbers) and every other `key=value`
do not take effect: they become the row's `warning`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import LoraSyntaxError
from .row import LoraRow, number, shown

COMFY = "comfy"
A1111 = "a1111"
SYNTAXES = (COMFY, A1111)

_TAG = re.compile(r"<(?:lora|lyco):([^<>\r\n]*)(>?)", re.IGNORECASE)
# Presets (ALL, MIDD, ALL0.5) and lists of at least three: "0,8" is a mistyped strength, not a list.
_BLOCK_WEIGHTS = re.compile(r"(?!(?:INF|INFINITY|NAN)$)[A-Z][A-Z0-9_.]*|[-+.0-9eE ]+(?:,[-+.0-9eE ]+){2,}")


class _Arguments(NamedTuple):
    """What follows the name: positional numbers, te=/unet=, and what does not take effect."""

    numbers: list[float]
    te: float | None
    unet: float | None
    ignored: list[str]


def extract_tags(text: str, syntax: str = COMFY) -> tuple[str, tuple[LoraRow, ...]]:
    """`text` without its tags, every other character kept, and the rows of the tags in order of appearance."""
    require_syntax(syntax)
    rows = tuple(_row(match, syntax) for match in _TAG.finditer(text))
    return (_TAG.sub("", text) if rows else text), rows


def has_tags(text: str) -> bool:
    """True when `text` holds at least the beginning of a tag."""
    return _TAG.search(text) is not None


def require_syntax(syntax: str) -> None:
    if syntax not in SYNTAXES:
        raise LoraSyntaxError(f"unknown tag syntax {shown(syntax)}; use 'comfy' or 'a1111'")


def _row(match: re.Match[str], syntax: str) -> LoraRow:
    tag = match[0]
    if not match[2]:
        raise LoraSyntaxError(f"tag {shown(tag)} is never closed; end it with '>'")
    name, *parts = (part.strip() for part in match[1].split(":"))
    if not name:
        raise LoraSyntaxError(f"tag {shown(tag)} names no LoRA; write <lora:name:1>")
    arguments = _arguments(tag, parts)
    if syntax == COMFY:
        model, clip = _comfy_strengths(tag, arguments)
    else:
        model, clip = _a1111_strengths(tag, arguments)
    warning = f"no effect in {shown(tag)}: {', '.join(arguments.ignored)}" if arguments.ignored else ""
    return LoraRow(name, model, clip, warning=warning)


def _arguments(tag: str, parts: Sequence[str]) -> _Arguments:
    numbers: list[float] = []
    named: dict[str, float] = {}
    ignored: list[str] = []
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if equals and key in ("te", "unet"):
            named[key] = number(value, f"{key}= in tag {shown(tag)}")
        elif equals or _BLOCK_WEIGHTS.fullmatch(part):
            ignored.append(part)
        else:
            numbers.append(number(part, f"strength in tag {shown(tag)}"))
    return _Arguments(numbers, named.get("te"), named.get("unet"), ignored)


def _comfy_strengths(tag: str, arguments: _Arguments) -> tuple[float, float]:
    numbers = arguments.numbers
    if len(numbers) > 2:
        raise LoraSyntaxError(f"tag {shown(tag)} has {len(numbers)} numbers; it takes model and clip strength")
    model = numbers[0] if numbers else 1.0
    clip = numbers[1] if len(numbers) == 2 else model
    return _either(arguments.unet, model), _either(arguments.te, clip)


def _a1111_strengths(tag: str, arguments: _Arguments) -> tuple[float, float]:
    numbers = arguments.numbers
    if len(numbers) > 3:
        raise LoraSyntaxError(f"tag {shown(tag)} has {len(numbers)} numbers; it takes TE and UNet strength and a rank")
    if len(numbers) == 3:
        arguments.ignored.append(f"rank {numbers[2]:g}")
    # In this order: UNet follows the TE strength, even one that was given by name.
    te = _either(arguments.te, numbers[0] if numbers else 1.0)
    unet = _either(arguments.unet, numbers[1] if len(numbers) >= 2 else te)
    return unet, te


def _either(named: float | None, positional: float) -> float:
    return positional if named is None else named
