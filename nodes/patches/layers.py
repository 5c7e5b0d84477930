"""From the patches of several LoRAs to the few layers that `add_patches` takes, with every weight's order kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch

from ...lora.fusing.fuse import PlainLora
from .key_map import Target, weight_key


class Patch(NamedTuple):
    """One patch of one LoRA, ready for any strength."""

    target: Target
    value: object
    """What the host's own matching produced: an adapter, or a (kind, tensors) tuple."""
    lora: PlainLora | None
    """Set when the patch only adds a plain LoRA, here at strength 1: such patches of one target may be summed."""


Summands: TypeAlias = "list[torch.Tensor | float | None]"
"""up, down, mid, scale with the strength in it, up, down, ...: flat, because a container per LoRA and weight would be
thousands for the garbage collector to look at."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One `add_patches` call: target -> patch, all at one strength."""

    strength: float
    patches: dict[Target, object]


def exact_layers(rows: Sequence[tuple[float, Sequence[Patch]]]) -> list[Layer]:
    """One layer per (strength, patches) row: the calls that chained stock loaders make, strength 0 included."""
    layers = (Layer(strength, {patch.target: patch.value for patch in patches}) for strength, patches in rows)
    return [layer for layer in layers if layer.patches]


def fused_layers(rows: Sequence[tuple[float, Sequence[Patch]]], fuse: Callable[[Summands], object]) -> list[Layer]:
    """As few layers as keep the order on every weight: usually one.

    Plain patches of one target become `fuse(summands)` at strength 1. A patch that is not a plain sum ends the run on
    its weight, so that it sees the sums before it and not those after it. Rows of strength 0 add nothing and are left
    out, but for what they set or pad.
    """
    sequence: list[tuple[float, Target, object]] = []
    runs: dict[str, dict[Target, Summands]] = {}
    for strength, patches in rows:
        for patch in patches:
            run = runs.setdefault(weight_key(patch.target), {})
            if patch.lora is None:
                if strength != 0 or _acts_at_zero(patch.value):
                    run.clear()
                    sequence.append((strength, patch.target, patch.value))
            elif strength != 0:
                summands = run.get(patch.target)
                if summands is None:
                    run[patch.target] = summands = []
                    sequence.append((1.0, patch.target, summands))
                lora = patch.lora
                summands += (lora.up, lora.down, lora.mid, lora.scale * strength)
    fused = ((strength, target, fuse(v) if isinstance(v, list) else v) for strength, target, v in sequence)
    return _pack(fused)


def _pack(sequence: Iterable[tuple[float, Target, object]]) -> list[Layer]:
    layers: list[Layer] = []
    reached: dict[str, int] = {}
    for strength, target, value in sequence:
        key = weight_key(target)
        at = reached.get(key, 0)
        while at < len(layers) and (layers[at].strength != strength or target in layers[at].patches):
            at += 1
        if at == len(layers):
            layers.append(Layer(strength, {}))
        layers[at].patches[target] = value
        reached[key] = at
    return layers


def _acts_at_zero(value: Any) -> bool:
    """The host sets a weight, or pads it to another shape, at any strength."""
    if isinstance(value, tuple):
        return bool(value[0] == "set")
    return getattr(value, "name", None) == "lora" and value.weights[5] is not None
