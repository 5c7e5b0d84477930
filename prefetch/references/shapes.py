"""The few ways in which nodes name LoRAs. A recogniser is a class name and some of these shapes, filled in as data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ...lora.stacks.vocabulary import CLIP_FIELDS, FOREIGN_NAME_FIELDS, MODEL_FIELDS, SWITCH_FIELDS
from ..queue.job import LoraReference, UnknownReference
from .graph import Computed, Node
from .values import MAX_NAME_CHARS, MAX_ROWS, first_of, is_on, name_in, number_in, parsed

Found = LoraReference | UnknownReference


class Shape(Protocol):
    """Reads what one node names. Never raises, whatever the inputs hold."""

    def read(self, node: Node) -> Iterator[Found]: ...


def unknown(node: Node, reason: str) -> UnknownReference:
    return UnknownReference(node.node_id, node.class_type, reason)


def named(
    node: Node,
    name: object,
    model: object,
    clip: object,
    *,
    guessed: bool = False,
    via_cache: bool = False,
    tiny: float = 0.0,
) -> Iterator[Found]:
    """One row: nothing when it names nothing or both strengths are known to be (nearly) zero."""
    if isinstance(name, Computed):
        yield unknown(node, f"the name comes from {name.source}")
        return
    text = name_in(name)
    if text is None:
        if isinstance(name, str) and len(name) > MAX_NAME_CHARS:
            yield unknown(node, f"a name of {len(name)} characters")
        return
    strengths = number_in(model), number_in(clip)
    if all(strength is not None and abs(strength) <= tiny for strength in strengths):
        return
    yield LoraReference(text, *strengths, node.node_id, node.class_type, via_cache, guessed)


def active(node: Node, keys: tuple[str, ...], unless: tuple[str, ...] = ()) -> bool | Computed:
    """False when one of the switches `keys` is off or one of `unless` is on, `Computed` when only a run can tell."""
    switches, vetoes = ([node.value(key) for key in of] for of in (keys, unless))
    if not all(isinstance(value, Computed) or is_on(value) for value in switches):
        return False
    if any(value and not isinstance(value, Computed) and is_on(value) for value in vetoes):
        return False
    return next((value for value in (*switches, *vetoes) if isinstance(value, Computed)), True)


@dataclass(frozen=True, slots=True)
class One:
    """One name in one input. `override` wins when it is filled; an `unless` input that is on turns the node off."""

    name: str = "lora_name"
    model: str = "strength_model"
    clip: str = "strength_clip"
    switches: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    override: str = ""
    tiny: float = 0.0

    def read(self, node: Node) -> Iterator[Found]:
        on = active(node, self.switches, self.unless)
        if isinstance(on, Computed):
            yield unknown(node, f"a switch comes from {on.source}")
        elif on:
            override = node.value(self.override) if self.override else None
            name = override if isinstance(override, Computed) or name_in(override) else node.value(self.name)
            model = node.value(self.model) if self.model else None
            yield from named(node, name, model, _clip_of(node, self.clip, model), tiny=self.tiny)


@dataclass(frozen=True, slots=True)
class Rows:
    """Numbered inputs; `{i}` stands for the row. Rows beyond `count` are hidden widgets that keep stale names."""

    name: str = "lora_name_{i}"
    model: str = "lora_strength_{i}"
    clip: str = ""
    simple: str = ""
    """Used for both strengths when input `mode` says "simple"."""
    mode: str = "mode"
    first: int = 1
    last: int = 50
    count: str = ""
    select: str = ""
    switches: tuple[str, ...] = ()
    toggles: tuple[str, ...] = ()
    chance: str = ""
    tiny: float = 0.0

    def read(self, node: Node) -> Iterator[Found]:
        rows = self._rows(node)
        if isinstance(rows, Computed):
            yield unknown(node, f"which rows are active comes from {rows.source}")
            return
        simple = bool(self.simple) and str(node.value(self.mode) or "simple").strip().lower().startswith("simple")
        for i in rows:
            if self.name.format(i=i) in node.inputs:
                yield from self._row(node, i, simple)

    def _rows(self, node: Node) -> range | Computed:
        on = active(node, self.toggles)
        last = self.last
        if self.count and not isinstance(on, Computed):
            count = node.value(self.count)
            if isinstance(count, Computed):
                return count
            last = min(last, _whole(count, self.last) + self.first - 1)
        if isinstance(on, Computed):
            return on
        if not on:
            return range(0)
        if self.select:
            selected = node.value(self.select)
            if isinstance(selected, Computed):
                return selected
            chosen = _whole(selected, 0)
            return range(chosen, chosen + 1) if self.first <= chosen <= last else range(0)
        return range(self.first, last + 1)

    def _row(self, node: Node, i: int, simple: bool) -> Iterator[Found]:
        on = active(node, tuple(key.format(i=i) for key in self.switches))
        if isinstance(on, Computed):
            yield unknown(node, f"the switch of row {i} comes from {on.source}")
        elif on and not (self.chance and number_in(node.value(self.chance.format(i=i))) == 0.0):
            model = node.value((self.simple if simple else self.model).format(i=i))
            clip = model if simple else _clip_of(node, self.clip.format(i=i), model)
            yield from named(node, node.value(self.name.format(i=i)), model, clip, tiny=self.tiny)


@dataclass(frozen=True, slots=True)
class Entries:
    """A list of row objects (also as a JSON string, also wrapped): `[{"name":.., "strength":.., "active":..}]`."""

    key: str = "loras"
    toggles: tuple[str, ...] = ()

    def read(self, node: Node) -> Iterator[Found]:
        value = node.value(self.key)
        if isinstance(value, Computed):
            yield unknown(node, f"the list comes from {value.source}")
            return
        if active(node, self.toggles) is False:
            return
        rows = parsed(value)
        if isinstance(rows, dict):
            rows = first_of(rows, ("__value__", "loras", "models", "rows"))
        if isinstance(rows, list):
            for row in rows[:MAX_ROWS]:
                yield from entry(node, row)
        elif isinstance(rows, str) and rows.strip():
            yield unknown(node, f"{self.key!r} is no list of LoRAs")


@dataclass(frozen=True, slots=True)
class Keyed:
    """One row object per input whose key starts with `prefix`, any case, gaps: `lora_3: {"on":.., "lora":..}`."""

    prefix: str = "lora_"
    toggles: tuple[str, ...] = ()

    def read(self, node: Node) -> Iterator[Found]:
        if active(node, self.toggles) is False:
            return
        for key in node.inputs:
            if key[: len(self.prefix)].lower() == self.prefix:
                yield from entry(node, parsed(node.value(key)))


@dataclass(frozen=True, slots=True)
class Flat:
    """The host's dynamic groups: `loras.0.lora_name`, `loras.0.strength`; rows may be sparse."""

    name: str = "lora_name"

    def read(self, node: Node) -> Iterator[Found]:
        rows = sorted((_whole(row, 0), group, row) for group, row in map(self._row, node.inputs) if row)
        for _, group, row in rows:
            fields = {field: node.value(f"{group}.{row}.{field}") for field in (*MODEL_FIELDS, *CLIP_FIELDS)}
            model, clip = first_of(fields, MODEL_FIELDS), first_of(fields, CLIP_FIELDS)
            yield from named(node, node.value(f"{group}.{row}.{self.name}"), model, model if clip is None else clip)

    def _row(self, key: str) -> tuple[str, str]:
        match = re.fullmatch(r"(.{1,64})\.(\d{1,4})\." + re.escape(self.name), key)
        return (match[1], match[2]) if match else ("", "")


@dataclass(frozen=True, slots=True)
class Csv:
    """Names and weights as two comma separated strings."""

    names: str = "lora_names"
    weights: str = "lora_weights"

    def read(self, node: Node) -> Iterator[Found]:
        names, weights = node.value(self.names), node.value(self.weights)
        if isinstance(names, Computed):
            yield unknown(node, f"the names come from {names.source}")
        elif isinstance(names, str):
            listed = [part.strip() for part in weights.split(",")] if isinstance(weights, str) else []
            for i, name in enumerate(names.split(",", MAX_ROWS)[:MAX_ROWS]):
                weight = listed[i] if i < len(listed) else (None if isinstance(weights, Computed) else 1.0)
                yield from named(node, name, weight, weight)


@dataclass(frozen=True, slots=True)
class Drawn:
    """`inner`, unless input `key` says that the node draws or lists its files at run time."""

    inner: Shape
    key: str
    reason: str
    word: str = ""
    """The node draws when the input contains this word."""
    fixed: str = ""
    """The node draws when the input says anything but this word."""
    needs: str = ""
    """An input that must be filled for the draw to happen."""

    def read(self, node: Node) -> Iterator[Found]:
        if self._draws(node):
            yield unknown(node, self.reason)
        else:
            yield from self.inner.read(node)

    def _draws(self, node: Node) -> bool:
        value = node.value(self.key)
        if not isinstance(value, str) or (self.needs and node.value(self.needs) is None):
            return False
        return self.word in value.lower() if self.word else value.strip().lower() != self.fixed


@dataclass(frozen=True, slots=True)
class Unknowable:
    """The node will load something that its JSON does not name."""

    reason: str

    def read(self, node: Node) -> Iterator[Found]:
        yield unknown(node, self.reason)


def entry(node: Node, row: object, *, guessed: bool = False) -> Iterator[Found]:
    """One row object; nothing when a switch of it is off or it is no row at all."""
    if not isinstance(row, dict) or not all(is_on(row[field]) for field in SWITCH_FIELDS if field in row):
        return
    model, clip = first_of(row, MODEL_FIELDS), first_of(row, CLIP_FIELDS)
    yield from named(node, first_of(row, FOREIGN_NAME_FIELDS), model, model if clip is None else clip, guessed=guessed)


def _clip_of(node: Node, key: str, model: object) -> object:
    """The clip strength; an absent input follows the model strength, as the packs' own defaults do."""
    if not key:
        return 0.0 if model is not None else None
    value = node.value(key)
    return model if value is None else value


def _whole(value: object, default: int) -> int:
    number = number_in(value)
    return default if number is None else int(number)
