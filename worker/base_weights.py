"""BaseWeights: the weights of a pipeline that LoRAs can update, and the way back to their original bits.

Updates are always computed from the originals and never subtracted: after a hundred merges and unmerges in bf16 one
weight in fourteen would differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from ..lora.fusing.fuse import PlainLora, add_fused_
from .errors import OffloadedError, QuantisedError
from .fused_projections import copy_into_fused, is_fused
from .lora_pipeline import LoraPipeline, Place
from .originals import Originals, weight_of

_COMPILED = "_orig_mod"
"""What `torch.compile` puts into the path of the module that it wraps."""
_WRAPPED = (_COMPILED, "base_layer")
"""Where wrappers keep the module whose weight they hand out as theirs; the second is PEFT's."""


@contextmanager
def _writing() -> Iterator[None]:
    """Weights made in inference mode take writes only in it, others anywhere. An autocast around all of it would go on
    with the copies that it has made of them."""
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.clear_autocast_cache()


class BaseWeights:
    """Finds the weights that one pipeline has now, and gives back their original bits. Not thread-safe.

    Made anew for each call: one that stayed would keep models alive that the pipeline has let go of, and would not see
    modules that were replaced."""

    def __init__(self, pipeline: LoraPipeline, originals: Originals) -> None:
        self._originals = originals
        self._modules: dict[Place, torch.nn.Module] = {}
        """One module for all places of one weight: a model may be there twice, and its layers may share weights."""
        self._owners: dict[int, torch.nn.Module] = {}
        """The first module of each weight, by its id."""
        self._closed: dict[Place, torch.nn.Module] = {}
        """Those of which nothing can be added to the weight."""
        self._fused: list[torch.nn.Module] = []
        """Attentions that read copies of their weights."""
        self._on_disk: set[str] = set()
        for component in pipeline._lora_loadable_modules:
            model = getattr(pipeline, component, None)
            if model is not None:
                self._take(component, model)

    @cached_property
    def signature(self) -> tuple[tuple[Place, tuple[int, ...]], ...]:
        """What a LoRA can match: equal for pipelines of equal architecture. Closed weights have no shape."""
        shapes = ((place, self.shape(place)) for place in self._modules)
        return (*shapes, *((place, ()) for place in sorted(self._closed)))

    @property
    def device(self) -> torch.device | None:
        """Of every weight; None when they are on several, as with offloading."""
        devices = {weight_of(module).device for module in self._modules.values()}
        return devices.pop() if len(devices) == 1 else None

    def find(self, place: Place) -> Place | None:
        """`place` as this pipeline spells it: transformers has flattened `text_model.` out of some encoders."""
        return next((spelling for spelling in _spellings(place) if spelling in self._modules), None)

    def closed(self, place: Place) -> bool:
        """Whether the weight there is packed, or computed from others, so that nothing can be added to it."""
        return any(spelling in self._closed for spelling in _spellings(place))

    def shape(self, place: Place) -> tuple[int, ...]:
        return tuple(weight_of(self._modules[place]).shape)

    @_writing()
    def update(self, updates: Mapping[Place, Sequence[PlainLora]]) -> None:
        """Every weight becomes its original plus its `updates`; weights without any become the original.

        The sum is rounded once. Originals are copied aside at a weight's first update. Raises OffloadedError and
        QuantisedError, with nothing changed."""
        changed = self._changed()
        self._require_here([*updates, *changed])
        wanted: dict[torch.nn.Module, list[PlainLora]] = {}
        for place, loras in updates.items():
            wanted.setdefault(self._modules[place], []).extend(loras)
        for module in {self._modules[place] for place in changed} - wanted.keys():
            self._originals.restore(module)
        for module, loras in wanted.items():
            add_fused_(self._originals.give_back(module), loras)
        self._copy_into_fused([*updates, *changed])

    @_writing()
    def restore(self) -> None:
        """The original bits everywhere. Raises OffloadedError and QuantisedError, with nothing changed."""
        changed = self._changed()
        self._require_here(changed)
        for place in changed:
            self._originals.restore(self._modules[place])
        self._copy_into_fused(changed)

    def forget(self) -> None:
        """`restore`, and the copies go. Raises OffloadedError and QuantisedError, with nothing changed."""
        self.restore()
        for module in (*self._modules.values(), *self._closed.values()):
            self._originals.drop(module)

    def _changed(self) -> list[Place]:
        for place, module in self._closed.items():
            if self._originals.changed(module):
                raise QuantisedError(
                    f"the {place.component} was quantised or parametrized while a stack was on, which cannot be taken "
                    "off any more; reload it, and take the stack off (remove_from_pipeline) before that next time"
                )
        return [place for place, module in self._modules.items() if self._originals.changed(module)]

    def _copy_into_fused(self, places: Iterable[Place]) -> None:
        written = {id(weight_of(self._modules[place])) for place in places} if self._fused else ()
        for attention in self._fused:
            copy_into_fused(attention, written, _behind_wrappers)

    def _require_here(self, places: Iterable[Place]) -> None:
        for place in places:
            on_disk = place.component in self._on_disk
            if on_disk or weight_of(self._modules[place]).is_meta:
                raise OffloadedError(
                    f"the weights of {place.component} are offloaded {'to disk' if on_disk else 'layer by layer'}, "
                    "where LoRAs cannot be added to them; use pipeline.enable_model_cpu_offload() in place of "
                    "sequential or disk offloading"
                )

    def _take(self, component: str, model: torch.nn.Module) -> None:
        taken: set[torch.nn.Module] = set()
        for name, module in model.named_modules():
            if _lies_on_disk(module):
                self._on_disk.add(component)
            else:
                _put_back(module)
            if is_fused(module):
                self._fused.append(module)
            weight = getattr(module, "weight", _packed_elsewhere(module))
            if not isinstance(weight, torch.Tensor):
                continue
            owner = _behind_wrappers(module)
            if owner in taken:
                continue
            taken.add(owner)
            place = Place(component, _without_compiled(name) if _COMPILED in name else name)
            if not _owns_weight(owner) or _is_packed(weight):
                self._closed[place] = owner
            elif weight.dim() >= 2:
                self._modules[place] = self._owners.setdefault(id(weight_of(owner)), owner)


def _behind_wrappers(module: torch.nn.Module) -> torch.nn.Module:
    """The module that a weight stays with: wrappers come and go, and their copy of the original would go with them."""
    while not _owns_weight(module):
        inner = next((found for name in _WRAPPED if (found := module._modules.get(name)) is not None), None)
        if inner is None:
            break
        module = inner
    return module


def _owns_weight(module: torch.nn.Module) -> bool:
    """Not so for wrappers, which hand out another's, and parametrizations, which compute it."""
    return "weight" in module._parameters or "weight" in module._buffers


def _packed_elsewhere(module: torch.nn.Module) -> torch.Tensor | None:
    """GPTQ's, AWQ's and Nunchaku's modules have no `weight`."""
    return module._buffers.get("qweight", module._parameters.get("qweight"))


def _is_packed(weight: torch.Tensor) -> bool:
    """Packed weights are integers, or of a class of their own, whatever dtype that claims. Floats of eight bits are
    codes whose scale is elsewhere, or too coarse to take an update."""
    own_class = type(weight) not in (torch.Tensor, torch.nn.Parameter)
    return own_class or not weight.is_floating_point() or weight.element_size() < 2


def _without_compiled(path: str) -> str:
    return ".".join(part for part in path.split(".") if part != _COMPILED)


def _lies_on_disk(module: torch.nn.Module) -> bool:
    """Whether diffusers fetches its weights from disk for each forward pass. Their memory then holds anything at all:
    neither is it the original, nor does the pass see what is written there."""
    configs = [getattr(hook, "config", None) for hook in _diffusers_hooks(module)]
    return any(getattr(config, "offload_to_disk_path", None) for config in configs)


def _put_back(module: torch.nn.Module) -> None:
    """Where a forward pass broke off (no memory), diffusers' streamed groups stay on the device. The next pass takes
    them from their copy in host memory all the same: what was written to the device would be lost, and the stack that
    was on would count as the model's own."""
    for hook in _diffusers_hooks(module):
        group: Any = getattr(hook, "group", None)
        if group is not None and group.stream is not None:
            group.offload_()


def _diffusers_hooks(module: torch.nn.Module) -> Iterable[Any]:
    # Not getattr, which is slow where there is none, as in most modules.
    registry = vars(module).get("_diffusers_hook")
    return () if registry is None else registry.hooks.values()


def _spellings(place: Place) -> tuple[Place, ...]:
    short = place.module.removeprefix("text_model.")
    return place, place._replace(module=short), place._replace(module=f"text_model.{short}")
