"""Rows as programs write them: objects of a JSON list, names, short lists, LORA_STACK tuples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from ..errors import LoraSyntaxError
from .row import LoraRow, name, number, shown, switch
from .vocabulary import CLIP_FIELDS, MODEL_FIELDS, NAME_FIELDS, SWITCH_FIELDS

_FIELDS = (*NAME_FIELDS, *MODEL_FIELDS, *CLIP_FIELDS, *SWITCH_FIELDS, "category", "target")
_SAME_WORD = 0.82
"""difflib's ratio above which a field is a misspelling: "weigth" is one, another tool's "mode" is not "models"."""


def read_rows(entries: Iterable[object]) -> tuple[LoraRow, ...]:
    """Rows of a list; entries that are switched off or name no LoRA ("None") are left out."""
    rows = (read_row(entry, f"row {index}") for index, entry in enumerate(entries, 1))
    return tuple(row for row in rows if row is not None)


def read_row(entry: object, where: str) -> LoraRow | None:
    """One entry: an object, a name, [name, strength] or [name, model, clip]. None when it is off or empty."""
    if isinstance(entry, LoraRow):
        return entry
    if isinstance(entry, Mapping):
        return _from_mapping(entry, where)
    if isinstance(entry, str) or entry is None:
        found = name(entry, where)
        return None if found is None else LoraRow(found)
    if isinstance(entry, Sequence):
        return _from_sequence(entry, where)
    raise LoraSyntaxError(
        f'{where}: {shown(entry)} is no LoRA; write "name", ["name", 0.8] or {{"name": ..., "strength": ...}}'
    )


def read_tuples(stack: Iterable[object]) -> tuple[LoraRow, ...]:
    """Rows of a LORA_STACK: (name, strength_model, strength_clip), each of three."""
    rows = []
    for index, entry in enumerate(stack, 1):
        if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 3:
            raise LoraSyntaxError(
                f"LORA_STACK entry {index}: {shown(entry)} is not (name, strength_model, strength_clip)"
            )
        row = _from_sequence(entry, f"LORA_STACK entry {index}")
        if row is not None:
            rows.append(row)
    return tuple(rows)


def require_known(entry: Mapping[object, object], fields: Sequence[str], where: str) -> None:
    """Refuse a misspelt field, which would be ignored in silence; fields of other tools pass."""
    for key in entry:
        if not isinstance(key, str):
            raise LoraSyntaxError(f"{where}: field {shown(key)} is not text")
        if key not in fields and (near := get_close_matches(key, fields, 1, _SAME_WORD)):
            raise LoraSyntaxError(f"{where}: unknown field {shown(key)}; did you mean {near[0]!r}?")


def _from_mapping(entry: Mapping[object, object], where: str) -> LoraRow | None:
    require_known(entry, _FIELDS, where)
    if not all(switch(entry[field], f"{where}, {field!r}") for field in SWITCH_FIELDS if field in entry):
        return None
    if not any(field in entry for field in NAME_FIELDS):
        raise LoraSyntaxError(f"{where}: {shown(dict(entry))} names no LoRA; it needs a 'name'")
    found = name(_only(entry, NAME_FIELDS, where), where)
    if found is None:
        return None
    where = f"{where} ({found})"
    model = _only(entry, MODEL_FIELDS, where)
    clip = _only(entry, CLIP_FIELDS, where)
    strength_model = 1.0 if model is None else number(model, f"{where}, strength")
    strength_clip = strength_model if clip is None else number(clip, f"{where}, clip strength")
    category, target = (_text(entry, field, where) for field in ("category", "target"))
    return LoraRow(found, strength_model, strength_clip, category, target=target)


def _from_sequence(entry: Sequence[object], where: str) -> LoraRow | None:
    if len(entry) not in (2, 3):
        raise LoraSyntaxError(
            f"{where}: {shown(entry)} has {len(entry)} parts; write [name, strength] or [name, model, clip]"
        )
    found = name(entry[0], where)
    if found is None:
        return None
    numbers = [number(part, f"{where} ({found}), strength") for part in entry[1:]]
    return LoraRow(found, numbers[0], numbers[-1])


def _only(entry: Mapping[object, object], fields: Sequence[str], where: str) -> object:
    """The value under whichever of `fields` is there; two that contradict each other are refused."""
    present = [field for field in fields if entry.get(field) is not None]
    if any(entry[field] != entry[present[0]] for field in present[1:]):
        raise LoraSyntaxError(f"{where}: {' and '.join(map(repr, present))} contradict each other; write one of them")
    return entry[present[0]] if present else None


def _text(entry: Mapping[object, object], field: str, where: str) -> str:
    value = entry.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise LoraSyntaxError(f"{where}: {field} {shown(value)} is not text")
    return value.strip()
