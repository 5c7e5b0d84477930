"""FittedRow: one row of a stack with what it needs to be applied to one pipeline."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from ..lora.cache.lease import Lease
from ..lora.device.device_adapter import DeviceAdapter, Twin
from ..lora.fusing.fuse import PlainLora
from ..lora.library.file import LoraFile
from ..lora.stacks.row import LoraRow
from .application import AppliedLora
from .fitting import Fit
from .lora_pipeline import Place

_PICKLE = "LoRA {!r} is a pickle, which is never read ahead; save it as .safetensors"


class FittedRow(NamedTuple):
    """Holds the lease of its adapter, and on a device a use of it there."""

    row: LoraRow
    file: LoraFile
    lease: Lease
    fit: Fit
    fit_s: float

    @property
    def components(self) -> tuple[str, ...]:
        """Those that the row updates."""
        found = dict.fromkeys(place.component for place in self.fit.loras)
        return tuple(component for component in found if strength_for(self.row, component))

    def updates(self, there: DeviceAdapter | None) -> Iterator[tuple[Place, PlainLora]]:
        """Those with an effect, the strength folded into their scales; from the device where the adapter is `there`."""
        twin = None if there is None else there.twins(self.lease.adapter)
        for place, lora in self.fit.loras.items():
            strength = strength_for(self.row, place.component)
            if strength and lora.scale:
                moved = lora if twin is None else _moved(lora, twin)
                yield place, replace(moved, scale=lora.scale * strength)

    def applied(self, there: DeviceAdapter | None, reached: Collection[str]) -> AppliedLora:
        """`reached`: the components that the whole stack updates."""
        pickle = _PICKLE.format(self.file.name) if self.file.is_pickle else ""
        return AppliedLora(
            name=self.file.name,
            category=self.file.category,
            strength_model=self.row.strength_model,
            strength_clip=self.row.strength_clip,
            outcome=self.lease.outcome,
            wait_s=self.lease.wait_s,
            nbytes=self.lease.adapter.nbytes,
            matched=len(self.fit.loras),
            unmatched=self.fit.unmatched,
            matched_share=self.fit.matched_share,
            device_outcome=None if there is None else there.outcome,
            warning=self.row.warning or pickle,
            components=self.components,
            left_out=tuple(c for c in self.fit.left_out if self.row.strength_model and c not in reached),
        )


def strength_for(row: LoraRow, component: str) -> float:
    return row.strength_clip if component.startswith("text_encoder") else row.strength_model


def _moved(lora: PlainLora, twin: Twin) -> PlainLora:
    mid = None if lora.mid is None else twin(lora.mid)
    return replace(lora, up=twin(lora.up), down=twin(lora.down), mid=mid)
