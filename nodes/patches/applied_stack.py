"""Applying a stack of leased adapters to the host's MODEL and CLIP, exactly as the host would or fused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import comfy.lora
import comfy.lora_convert
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter

from ...lora.cache.adapter import Adapter
from ...lora.cache.lease import Lease
from ...lora.fusing.fuse import PlainLora
from .fused_adapter import FusedLoraAdapter
from .identity import stack_uuid
from .key_map import Target, weight_key
from .layers import Layer, Patch, exact_layers, fused_layers
from .leasing import LeasedRow, LeaseHolder
from .lost_rotation import lost_rotation
from .prepared_patches import PreparedPatches, Tensors, prepare
from .report import Match
from .target_model import TargetModels, Targets

StackMath: TypeAlias = Literal["fused", "exact"]

LEASES = "warmstack.leases"
_METADATA = "lora_metadata"
"""Where the host's own LoRA loaders put the header's metadata; core nodes read it."""
_KEPT_MATCHES = 8
"""Kinds of models that an adapter stays matched to: a pinned adapter would otherwise collect them for ever."""


@dataclass(frozen=True, slots=True)
class AppliedStack:
    """The stack's result: MODEL, CLIP, and per row how much of the LoRA found its weights, and the kind of what the
    host will not add to the model all the same ("" for none)."""

    model: Any
    clip: Any
    matches: tuple[Match, ...]
    lost: tuple[str, ...]


def apply_stack(model: Any, clip: Any, rows: Sequence[LeasedRow], math: StackMath, known: TargetModels) -> AppliedStack:
    """Patch clones of `model` and `clip`; either may be None. A side on which nothing changes is returned as it is.

    `exact` makes the patches that chained stock loaders make, in their order, with the host's own adapters. `fused`
    sums the plain LoRAs of one weight in one adapter; the rest keeps its order around them.
    """
    targets = targets_of(model, clip, known)
    prepared = [prepared_patches(leased.lease.adapter, targets) for leased in rows]
    pairs = list(zip(rows, prepared, strict=True))
    model_side = tuple(_SideRow(leased, leased.row.strength_model, patches.model) for leased, patches in pairs)
    clip_side = tuple(_SideRow(leased, leased.row.strength_clip, patches.clip) for leased, patches in pairs)
    return AppliedStack(
        None if model is None else _patched(model, _Side("model", math, targets.fingerprint, model_side)),
        None if clip is None else _patched(clip, _Side("clip", math, targets.fingerprint, clip_side)),
        tuple(patches.match for patches in prepared),
        tuple("" if model is None else lost_rotation(model, (p.value for p in one.model)) for one in prepared),
    )


def targets_of(model: Any, clip: Any, known: TargetModels) -> Targets:
    """What a MODEL and a CLIP offer to patch; either may be None."""
    return Targets(
        model=None if model is None else known.of(model.model, comfy.lora.model_lora_keys_unet),
        clip=None if clip is None else known.of(clip.cond_stage_model, comfy.lora.model_lora_keys_clip),
    )


def prepared_patches(adapter: Adapter, targets: Targets) -> PreparedPatches:
    """The patches of `adapter` for `targets`, matched at the first call and kept beside the adapter."""
    known = adapter.prepared.get(targets.fingerprint)
    if not isinstance(known, PreparedPatches):
        tensors = comfy.lora_convert.convert_lora(dict(adapter.tensors))
        known = prepare(tensors, targets, _host_match, _lora)
        while len(adapter.prepared) >= _KEPT_MATCHES:
            del adapter.prepared[next(iter(adapter.prepared))]
        adapter.prepared[targets.fingerprint] = known
    return known


class _SideRow(NamedTuple):
    leased: LeasedRow
    strength: float
    patches: tuple[Patch, ...]


class _Side(NamedTuple):
    name: str
    math: StackMath
    fingerprint: str
    rows: tuple[_SideRow, ...]

    def layers(self) -> list[Layer]:
        patches = [(row.strength, row.patches) for row in self.rows]
        return exact_layers(patches) if self.math == "exact" else fused_layers(patches, FusedLoraAdapter.of)

    def uuid(self, base: uuid.UUID) -> uuid.UUID:
        content = [(row.leased.lease.adapter.key, row.strength) for row in self.rows]
        return stack_uuid(base, content, math=self.math, fingerprint=self.fingerprint, side=self.name)


def _patched(owner: Any, side: _Side) -> Any:
    """`owner` is a MODEL (a ModelPatcher) or a CLIP, which has one."""
    layers = side.layers()
    if not layers:
        return owner
    clone = owner.clone()
    patcher = getattr(clone, "patcher", clone)
    # `patches_uuid` is internal to the host: where it is something else, the host re-patches as it would without us.
    base = getattr(patcher, "patches_uuid", None)
    _add(clone, patcher, layers)
    if isinstance(base, uuid.UUID):
        patcher.patches_uuid = side.uuid(base)
    _attach(patcher, [row.leased.lease for row in side.rows])
    return clone


def _add(owner: Any, patcher: Any, layers: Sequence[Layer]) -> None:
    """`add_patches` per layer. It lists the whole state dict each time, 5 ms for SDXL: where the first call shows the
    entries that we know, the other layers are appended in the same form."""
    first, *others = layers
    owner.add_patches(first.patches, first.strength)
    if not others or not _shows_known_entries(patcher, first):
        for layer in others:
            owner.add_patches(layer.patches, layer.strength)
        return
    for layer in others:
        for target, value in layer.patches.items():
            entries = patcher.patches.setdefault(weight_key(target), [])
            entries.append(_entry(layer.strength, target, value))


def _shows_known_entries(patcher: Any, layer: Layer) -> bool:
    if type(patcher).add_patches is not ModelPatcher.add_patches or not isinstance(patcher.patches, dict):
        return False
    target, value = next(reversed(layer.patches.items()))
    expected = _entry(layer.strength, target, value)
    entries = patcher.patches.get(weight_key(target))
    if type(entries) is not list or not entries or len(entries[-1]) != len(expected):
        return False
    # By identity, but for the number: two tensors have no single truth value to compare.
    return entries[-1][2] == 1.0 and all(entries[-1][at] is expected[at] for at in (0, 1, 3, 4))


def _entry(strength: float, target: Target, value: object) -> tuple[object, ...]:
    """(strength, patch, strength of the weight itself, offset, function), as the host stores a patch."""
    if isinstance(target, str):
        return (strength, value, 1.0, None, None)
    return (strength, value, 1.0, target[1], target[2] if len(target) > 2 else None)


def _attach(patcher: Any, leases: Sequence[Lease]) -> None:
    patcher.set_attachments(LEASES, LeaseHolder(leases, patcher.get_attachment(LEASES)))
    metadata = [lease.adapter.metadata for lease in leases if lease.adapter.metadata]
    if metadata:
        patcher.set_attachments(_METADATA, dict(metadata[-1]))


def _host_match(tensors: Tensors, key_map: Mapping[str, Target]) -> Mapping[Target, object]:
    return cast("Mapping[Target, object]", comfy.lora.load_lora(tensors, key_map, log_missing=False))


def _lora(value: object) -> PlainLora | None:
    # Not isinstance: a subclass may compute something else.
    if type(value) is not LoRAAdapter:
        return None
    up, down, alpha, mid, dora_scale, reshape = cast("Any", value).weights
    if dora_scale is not None or reshape is not None or not down.shape[0]:
        return None
    return PlainLora(up, down, 1.0 if alpha is None else alpha / down.shape[0], mid)
