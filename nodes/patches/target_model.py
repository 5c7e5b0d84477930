"""TargetModel: what patching needs to know of a model, read once and forgotten with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch

from .key_map import Target, fingerprint

Structure: TypeAlias = tuple[tuple[str, type], ...]
ReadKeyMap: TypeAlias = Callable[[torch.nn.Module, dict[str, Target]], dict[str, Target]]
"""The host's key map function for one kind of model: adds to the dict and returns it."""


@dataclass(frozen=True, slots=True)
class TargetModel:
    """The names under which LoRAs know the weights of one model. Holds no weight and no module."""

    key_map: Mapping[str, Target]
    shapes: Mapping[str, tuple[int, ...] | None]
    """Every name in the state dict, and the shape of the weight itself, which the host may store packed. None where
    the shape is the storage's and says nothing about the weight."""
    fingerprint: str
    structure: Structure
    """Every module below, and its type. Wrapping one (torch.compile, of the whole or of a block) renames its weights,
    and then this no longer fits."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The models that one stack patches; either may be missing."""

    model: TargetModel | None
    clip: TargetModel | None

    @property
    def fingerprint(self) -> str:
        return f"{self.model.fingerprint if self.model else '-'}/{self.clip.fingerprint if self.clip else '-'}"

    def key_map(self) -> dict[str, Target]:
        """Both maps in one, as the host builds it: of two equal names the text encoder's target wins."""
        merged: dict[str, Target] = dict(self.model.key_map) if self.model else {}
        if self.clip:
            merged.update(self.clip.key_map)
        return merged


class TargetModels:
    """Remembers `TargetModel`s for as long as their modules live."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[torch.nn.Module, TargetModel] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, module: torch.nn.Module, read_key_map: ReadKeyMap) -> TargetModel:
        """What is known of `module`, read at the first call and again when its structure has changed."""
        structure = tuple((name, type(below)) for name, below in module.named_modules())
        known = self._known.get(module)
        if known is None or known.structure != structure:
            key_map = read_key_map(module, {})
            weights = dict(module.named_parameters(remove_duplicate=False))
            shapes = {key: _shape(weights.get(key, stored)) for key, stored in module.state_dict().items()}
            known = TargetModel(key_map, shapes, fingerprint(key_map, shapes), structure)
            self._known[module] = known
        return known


def _shape(weight: object) -> tuple[int, ...] | None:
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) and weight.is_floating_point() else None
