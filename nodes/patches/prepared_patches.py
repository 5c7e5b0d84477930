"""Prepared patches: what one LoRA does to one kind of model, matched once and kept beside the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ...lora.fusing.fuse import PlainLora, fits
from ...lora.fusing.share import matched_share
from .file_modules import modules_of, update_norms
from .key_map import Target, restrict, weight_key
from .layers import Patch
from .patch_fit import may_fit
from .report import Match
from .target_model import Targets

Tensors: TypeAlias = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class PreparedPatches:
    """Patches of one file for one `Targets`, in the host's order. Their tensors alias the adapter's buffer."""

    model: tuple[Patch, ...]
    clip: tuple[Patch, ...]
    match: Match


def prepare(
    tensors: Tensors,
    targets: Targets,
    match: Callable[[Tensors, Mapping[str, Target]], Mapping[Target, object]],
    lora_of: Callable[[object], PlainLora | None],
) -> PreparedPatches:
    """`tensors` under the names that the host matches by; `match(tensors, key_map)` is its own matching;
    `lora_of(value)` tells a plain LoRA from the rest."""
    found = match(tensors, restrict(targets.key_map(), tensors))
    patches = [Patch(target, value, _fusable(target, value, lora_of)) for target, value in found.items()]
    model_shapes = targets.model.shapes if targets.model else {}
    clip_shapes = targets.clip.shapes if targets.clip else {}
    model = tuple(patch for patch in patches if weight_key(patch.target) in model_shapes)
    clip = tuple(patch for patch in patches if weight_key(patch.target) in clip_shapes)
    sides = [(patch, model_shapes) for patch in model] + [(patch, clip_shapes) for patch in clip]
    fitting: list[Patch] = []
    misfits: list[Patch] = []
    for patch, shapes in sides:
        (fitting if _fits(patch, shapes[weight_key(patch.target)]) else misfits).append(patch)
    return PreparedPatches(model, clip, _match(tensors, fitting, misfits))


def _fusable(target: Target, value: object, lora_of: Callable[[object], PlainLora | None]) -> PlainLora | None:
    # A function of the delta need not be linear in it: such a patch stays the host's own.
    return None if isinstance(target, tuple) and len(target) > 2 else lora_of(value)


def _fits(patch: Patch, shape: tuple[int, ...] | None) -> bool:
    if shape is None:
        return True
    if isinstance(patch.target, tuple) and patch.target[1] is not None:
        dimension, _, length = patch.target[1]
        shape = (*shape[:dimension], length, *shape[dimension + 1 :])
    return may_fit(patch.value, shape) if patch.lora is None else fits(patch.lora, shape)


def _match(tensors: Tensors, fitting: Iterable[Patch], misfits: Iterable[Patch]) -> Match:
    modules = modules_of(tensors)
    # By identity: the host may have renamed the keys, and passes the tensors through.
    owner = {id(tensors[key]): module for module, keys in modules.items() for key in keys}
    matched: set[str] = set()
    for patch in fitting:
        if patch.lora is None:
            matched.update(owner[id(tensor)] for tensor in _tensors(patch.value) if id(tensor) in owner)
        else:
            matched.add(owner[id(patch.lora.up)])
    unmatched = tuple(module for module in modules if module not in matched)
    misfit_weights = tuple(dict.fromkeys(weight_key(patch.target) for patch in misfits))
    return Match(len(modules), len(matched), _norm_share(tensors, modules, matched), unmatched, misfit_weights)


def _norm_share(tensors: Tensors, modules: Mapping[str, list[str]], matched: set[str]) -> float | None:
    if not matched or len(matched) == len(modules):
        return float(bool(matched))
    norms = update_norms(tensors, modules)
    return matched_share(
        [norms[module] for module in matched], [norms[module] for module in modules if module not in matched]
    )


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "weights"):
        yield from _tensors(value.weights)
