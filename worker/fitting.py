"""Fit: which updates of an adapter meet a weight of the pipeline, and which do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch

from ..lora.cache.adapter import Adapter
from ..lora.cache.budget import Reservation
from ..lora.cache.cache import AdapterCache
from ..lora.fusing.fuse import PlainLora, down_matrix, fits
from ..lora.fusing.share import matched_share, share_of_equals
from .base_weights import BaseWeights
from .denoisers import left_out, routed
from .errors import QuantisedError, WrongModelError
from .lora_pipeline import LoraPipeline, Place
from .naming import named_lora


@dataclass(frozen=True, slots=True)
class Fit:
    """The part of one adapter that applies to one pipeline."""

    loras: Mapping[Place, PlainLora]
    """At strength 1."""
    unmatched: tuple[str, ...]
    """Module paths and keys of the file that no weight of the pipeline answers to."""
    matched_share: float
    """Share of the update's Frobenius norm that applies; 1.0 when everything matched."""
    left_out: tuple[str, ...] = ()
    """Denoisers that the file may be for as well, since nobody chose."""
    closed: frozenset[str] = frozenset()
    """Components that the file is for and whose weights take no update."""

    def require_open(self, name: str, strength_of: Callable[[str], float]) -> None:
        """Raises QuantisedError when a component that takes no update should have one."""
        wanted = sorted(filter(strength_of, self.closed))
        if wanted:
            raise QuantisedError(
                f"LoRA {name!r} cannot be applied here: the {wanted[0]} is quantised or parametrized; use "
                "pipeline.load_lora_weights"
            )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What lies beside an adapter, and goes with it."""

    fit: Fit
    reservation: Reservation


def fit_adapter(
    pipeline: LoraPipeline, weights: BaseWeights, name: str, target: str, adapter: Adapter, cache: AdapterCache
) -> Fit:
    """The fit of `adapter`, worked out once per file, architecture and `target` (see `routed`), and kept beside the
    adapter.

    Factors that the converter computed take about as much memory as the adapter itself: `cache` has to have room for
    them, beside what queued jobs name, or the fit is worked out each time.

    Raises UnsupportedLoraError for formats that are no plain LoRA, TargetError, and WrongModelError when it was made
    for another model.
    """
    key = ("diffusers", type(pipeline).__name__, weights.signature, target)
    kept = adapter.prepared.get(key)
    if isinstance(kept, _Kept):
        return kept.fit
    fit = _fit(pipeline, weights, name, target, adapter)
    reservation = cache.reserve_beside(_bytes_beside(adapter, fit))
    if reservation is not None:
        adapter.prepared[key] = _Kept(fit, reservation)
    return fit


def _bytes_beside(adapter: Adapter, fit: Fit) -> int:
    """Memory of the factors that are no views of the adapter's."""
    factors = [factor for lora in fit.loras.values() for factor in (lora.up, lora.down, lora.mid) if factor is not None]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in (factor.untyped_storage() for factor in factors)}
    for tensor in adapter.tensors.values():
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


def _fit(pipeline: LoraPipeline, weights: BaseWeights, name: str, target: str, adapter: Adapter) -> Fit:
    named = named_lora(pipeline, name, adapter.tensors, adapter.metadata)
    loras: dict[Place, PlainLora] = {}
    homeless = dict(named.homeless)
    closed: set[str] = set()
    for place, lora in routed(pipeline, name, named.loras, target).items():
        found = weights.find(place)
        if weights.closed(place):
            closed.add(place.component)
        elif found is None:
            homeless[f"{place.component}.{place.module}"] = lora
        else:
            loras[found] = _fitting(pipeline, name, found, lora, weights.shape(found))
    if not loras and not closed:
        raise WrongModelError(
            f"LoRA {name!r} was made for another model: none of its {len(homeless) or len(named.leftover)} parts is in "
            f"{type(pipeline).__name__}; use a LoRA for this model"
        )
    share = _share(loras.values(), homeless.values())
    others = () if target else left_out(pipeline, {place.component for place in loras})
    return Fit(loras, (*homeless, *named.leftover), share, others, frozenset(closed))


def _fitting(pipeline: LoraPipeline, name: str, place: Place, lora: PlainLora, shape: tuple[int, ...]) -> PlainLora:
    """`lora`, padded with zeros where diffusers does so: a Flux for inpainting or control takes more channels than the
    one that it was trained on. Raises WrongModelError for one that does not fit."""
    if fits(lora, shape):
        return lora
    pads = hasattr(pipeline, "_maybe_expand_lora_state_dict") and place.component == "transformer"
    lacking = shape[1] - lora.down.shape[-1]
    if pads and len(shape) == lora.down.ndim == 2 and lacking > 0:
        padded = replace(lora, down=torch.nn.functional.pad(lora.down, (0, lacking)))
        if fits(padded, shape):
            return padded
    made_for = "x".join(map(str, lora.delta_shape))
    here = f"{shape[0]}x{math.prod(shape[1:])}"
    raise WrongModelError(
        f"LoRA {name!r} was made for another model: its update of {place.component}.{place.module} is {made_for}, "
        f"the weight of {type(pipeline).__name__} {here}; use a LoRA for this model"
    )


def _share(matched: Collection[PlainLora], lost: Collection[PlainLora]) -> float:
    lost_norms = [_norm(lora) for lora in lost]
    if not any(lost_norms):
        return 1.0
    share = matched_share([_norm(lora) for lora in matched], lost_norms)
    return share_of_equals(len(matched), len(lost)) if share is None else share


def _norm(lora: PlainLora) -> float:
    """The Frobenius norm of the update, from rank-sized products. 0 for factors that do not fit each other."""
    if lora.delta_shape == (-1, -1):
        return 0.0
    up = lora.up.detach().flatten(1).float()
    down = down_matrix(lora, up)
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return math.sqrt(max(0.0, square)) * abs(lora.scale) if math.isfinite(square) else math.inf
