"""BaseWeights: a pipeline's own weights, kept aside while LoRAs are applied to it.

Updates are always computed from these copies and never subtracted: after a hundred merges and unmerges in bf16 one
weight in fourteen would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from ..lora.fuse import PlainLora, add_fused_
from .naming import LoraPipeline, Place


class BaseWeights:
    """Finds the weights of one pipeline, and gives back their original bits. Not thread-safe."""

    def __init__(self, pipeline: LoraPipeline) -> None:
        self._modules: dict[Place, torch.nn.Module] = {}
        for component in pipeline._lora_loadable_modules:
            model = getattr(pipeline, component, None)
            if model is not None:
                self._modules.update(_patchable(component, model))
        self._copies: dict[Place, torch.Tensor] = {}
        self._dirty: set[Place] = set()

    @property
    def copied_bytes(self) -> int:
        return sum(copy.nbytes for copy in self._copies.values())

    @property
    def signature(self) -> tuple[tuple[Place, tuple[int, ...]], ...]:
        """What a LoRA can match: equal for pipelines of equal architecture."""
        return tuple((place, self.shape(place)) for place in self._modules)

    @property
    def device(self) -> torch.device | None:
        """Of every weight; None when they are on several, as with offloading."""
        devices = {_weight(module).device for module in self._modules.values()}
        return devices.pop() if len(devices) == 1 else None

    def find(self, place: Place) -> Place | None:
        """`place` as this pipeline spells it: transformers has flattened `text_model.` out of some encoders."""
        short = place.module.removeprefix("text_model.")
        spellings = (place, place._replace(module=short), place._replace(module=f"text_model.{short}"))
        return next((spelling for spelling in spellings if spelling in self._modules), None)

    def shape(self, place: Place) -> tuple[int, ...]:
        return tuple(_weight(self._modules[place]).shape)

    @torch.no_grad()
    def update(self, updates: Mapping[Place, Sequence[PlainLora]]) -> None:
        """Every weight becomes its original plus its `updates`; weights without any become the original.

        The sum is rounded once. Originals are copied aside at a weight's first update."""
        self.restore(self._dirty.difference(updates))
        for place, loras in updates.items():
            base = self.base(place)
            self._dirty.add(place)
            add_fused_(_weight(self._modules[place]).copy_(base), loras)

    @torch.no_grad()
    def base(self, place: Place) -> torch.Tensor:
        """The original weight: never write into it."""
        if place not in self._copies:
            self._copies[place] = _weight(self._modules[place]).detach().clone()
        return self._copies[place]

    @torch.no_grad()
    def restore(self, places: Iterable[Place] | None = None) -> None:
        """The original bits again, at `places` or everywhere."""
        restored = set(self._dirty if places is None else self._dirty.intersection(places))
        for place in restored:
            _weight(self._modules[place]).copy_(self._copies[place])
        self._dirty -= restored


def _patchable(component: str, model: torch.nn.Module) -> Iterator[tuple[Place, torch.nn.Module]]:
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() >= 2 and weight.is_floating_point():
            yield Place(component, name), module


def _weight(module: torch.nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight
