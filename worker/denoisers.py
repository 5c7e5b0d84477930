"""Denoisers: the models of a pipeline one of which a LoRA is for, and how a row chooses among them.

Wan 2.2 has two transformers of one architecture, for much noise and for little, and LoRAs in pairs. The keys of both
mostly name `transformer`, where diffusers puts them unless it is told otherwise (`load_into_transformer_2`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..lora.fusing.fuse import PlainLora
from .errors import TargetError
from .lora_pipeline import LoraPipeline, Place


def routed(
    pipeline: LoraPipeline, name: str, loras: Mapping[Place, PlainLora], target: str
) -> Mapping[Place, PlainLora]:
    """`loras` of file `name` with what they have for a denoiser at `target`; "" leaves them where the file's keys say.
    Raises TargetError."""
    known, kind = _present(pipeline), type(pipeline).__name__
    named = {place.component for place in loras}.intersection(_denoisers(pipeline))
    if not target:
        if known and named and named.isdisjoint(known):
            raise TargetError(
                f"LoRA {name!r} names the {min(named)}, which this {kind} is without; if it is for the {known[0]}, "
                f'write "target": "{known[0]}" into its row'
            )
        return loras
    if target not in known:
        cure = f"choose {' or '.join(known)}" if len(known) > 1 else "leave 'target' out of its row"
        raise TargetError(f"LoRA {name!r} is meant for {target!r}, which this {kind} is without; {cure}")
    if len(named) > 1:
        raise TargetError(
            f"LoRA {name!r} is meant for {target!r}, and its keys name {' and '.join(sorted(named))}; "
            "leave 'target' out of its row"
        )
    return {
        place._replace(component=target) if place.component in named else place: lora for place, lora in loras.items()
    }


def left_out(pipeline: LoraPipeline, reached: Collection[str]) -> tuple[str, ...]:
    """Denoisers that a file may be for as well when it reaches the components `reached` because nobody chose."""
    first, *others = _present(pipeline) or ("",)
    return () if first not in reached else tuple(name for name in others if name not in reached)


def _present(pipeline: LoraPipeline) -> tuple[str, ...]:
    return tuple(name for name in _denoisers(pipeline) if getattr(pipeline, name, None) is not None)


def _denoisers(pipeline: LoraPipeline) -> tuple[str, ...]:
    """The one that diffusers takes when nobody chooses, and others of its name."""
    components = pipeline._lora_loadable_modules
    return tuple(name for name in components if name == components[0] or name.startswith(f"{components[0]}_"))
