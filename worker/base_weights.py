"""BaseWeights: the weights of a pipeline that LoRAs can update, and the way back to their original bits.

Updates are always computed from the originals and never subtracted: after a hundred merges and unmerges in bf16 one
weight in fourteen would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from ..lora.errors import LoraError
from ..lora.fuse import PlainLora, add_fused_
from .naming import LoraPipeline, Place
from .originals import Originals, weight_of

_COMPILED = "_orig_mod"
"""What `torch.compile` puts into the path of the module that it wraps."""


class OffloadedError(LoraError):
    """Weights to write are not in memory now, so that writing would change nothing."""


class BaseWeights:
    """Finds the weights of one pipeline, and gives back their original bits. Not thread-safe."""

    def __init__(self, pipeline: LoraPipeline, originals: Originals) -> None:
        self._originals = originals
        self._components = _components(pipeline)
        self._modules: dict[Place, torch.nn.Module] = {}
        for component, model in self._components.items():
            self._modules.update(_patchable(component, model))

    def are_of(self, pipeline: LoraPipeline) -> bool:
        """False once a component was replaced."""
        return self._components == _components(pipeline)

    @property
    def signature(self) -> tuple[tuple[Place, tuple[int, ...]], ...]:
        """What a LoRA can match: equal for pipelines of equal architecture."""
        return tuple((place, self.shape(place)) for place in self._modules)

    @property
    def device(self) -> torch.device | None:
        """Of every weight; None when they are on several, as with offloading."""
        devices = {weight_of(module).device for module in self._modules.values()}
        return devices.pop() if len(devices) == 1 else None

    def find(self, place: Place) -> Place | None:
        """`place` as this pipeline spells it: transformers has flattened `text_model.` out of some encoders."""
        short = place.module.removeprefix("text_model.")
        spellings = (place, place._replace(module=short), place._replace(module=f"text_model.{short}"))
        return next((spelling for spelling in spellings if spelling in self._modules), None)

    def shape(self, place: Place) -> tuple[int, ...]:
        return tuple(weight_of(self._modules[place]).shape)

    @torch.no_grad()
    def update(self, updates: Mapping[Place, Sequence[PlainLora]]) -> None:
        """Every weight becomes its original plus its `updates`; weights without any become the original.

        The sum is rounded once. Originals are copied aside at a weight's first update. Raises OffloadedError, with
        nothing changed."""
        changed = self._changed()
        self._require_here([*updates, *changed])
        for place in changed:
            if place not in updates:
                self._originals.restore(self._modules[place])
        for place, loras in updates.items():
            add_fused_(self._originals.give_back(self._modules[place]), loras)

    @torch.no_grad()
    def restore(self) -> None:
        """The original bits everywhere. Raises OffloadedError, with nothing changed."""
        changed = self._changed()
        self._require_here(changed)
        for place in changed:
            self._originals.restore(self._modules[place])

    def forget(self) -> None:
        """`restore`, and the copies go. Raises OffloadedError, with nothing changed."""
        self.restore()
        for module in self._modules.values():
            self._originals.drop(module)

    def _changed(self) -> list[Place]:
        return [place for place, module in self._modules.items() if self._originals.changed(module)]

    def _require_here(self, places: Iterable[Place]) -> None:
        for place in places:
            if weight_of(self._modules[place]).is_meta:
                raise OffloadedError(
                    f"the weights of {place.component} are offloaded layer by layer, where LoRAs cannot be added to "
                    "them; use pipeline.enable_model_cpu_offload() in place of sequential or disk offloading"
                )


def _components(pipeline: LoraPipeline) -> dict[str, torch.nn.Module]:
    found = {component: getattr(pipeline, component, None) for component in pipeline._lora_loadable_modules}
    return {component: model for component, model in found.items() if model is not None}


def _patchable(component: str, model: torch.nn.Module) -> Iterator[tuple[Place, torch.nn.Module]]:
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() >= 2 and weight.is_floating_point():
            yield Place(component, ".".join(part for part in name.split(".") if part != _COMPILED)), module
