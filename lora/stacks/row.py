"""LoraRow: one LoRA at two strengths, and how written numbers and switches are read."""

from __future__ import annotations

import math
import re
import reprlib
from dataclasses import dataclass, field, replace
from numbers import Real

from ..errors import LoraSyntaxError
from .request_weights import RequestWeights
from .vocabulary import NO_LORA, OFF, ON

# float() alone would also take "nan", "inf", "1_0" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# Bounded in depth too: the repr of a hostile nested list overflows the stack.
_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = 64


@dataclass(frozen=True, slots=True)
class LoraRow:
    """One LoRA of a stack. `name` is as the user wrote it; the catalog resolves it."""

    name: str
    strength_model: float = 1.0
    strength_clip: float = 1.0
    category: str = ""
    """As written beside the name; "" when nobody wrote one."""
    warning: str = field(default="", compare=False)
    """What was written and does not take effect, in one line: block weights in a tag, a rank override."""
    weights: RequestWeights | None = None
    """Those of its request, while they are still to be multiplied in: its category, and with it its weight, is that of
    its file, which the reader of the text did not know."""
    target: str = ""
    """Which of a diffusers pipeline's denoisers it is for; "" when nobody chose. Of no effect in ComfyUI, where each is
    a model with a wire of its own: the nodes make a warning of it."""

    @property
    def is_active(self) -> bool:
        """False when both strengths are zero: the file is then never read."""
        return self.strength_model != 0.0 or self.strength_clip != 0.0

    def scaled(self, weight: float) -> LoraRow:
        """This row with both strengths multiplied by `weight`."""
        model, clip = self.strength_model * weight, self.strength_clip * weight
        if not (math.isfinite(model) and math.isfinite(clip)):
            raise LoraSyntaxError(
                f"LoRA {self.name!r}: weight {weight} makes the strength infinite; use smaller numbers"
            )
        return replace(self, strength_model=model, strength_clip=clip)


def shown(value: object) -> str:
    """`value` for an error text: quoted, on one line, shortened."""
    return _REPR.repr(value)


def number(value: object, where: str) -> float:
    """A finite number, also from text ("0.8"); `where` names the place for the error. Booleans are no numbers."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LoraSyntaxError(f"{where}: {shown(value)} is not a number; write for example 0.8")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise LoraSyntaxError(f"{where}: {shown(value)} is not a finite number; write for example 0.8")
    return found


def switch(value: object, where: str) -> bool:
    """true/false, 1/0, or "on"/"off" as text."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ON or word in OFF:
            return word in ON
    elif isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise LoraSyntaxError(f"{where}: {shown(value)} is neither true nor false")


def name(value: object, where: str) -> str | None:
    """A LoRA name, or None for the placeholders with which widgets say "no LoRA": null, "None", "[None]"."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise LoraSyntaxError(f"{where}: a LoRA name is text, not {shown(value)}")
    word = value.strip()
    if not word:
        raise LoraSyntaxError(f"{where}: the LoRA name is empty")
    return None if word.lower() in NO_LORA else as_written(value)


def as_written(text: str) -> str:
    """With the spaces around it, since a file's own name may begin with one; line breaks and tabs are in no name."""
    return text.strip() if any(mark in text for mark in "\r\n\t") else text
