"""ShelfPlace: what the device shelf knows about one adapter that is there, or on its way."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...loaders.reading.flat_views import FlatViews, TensorSpec, specs_of_tensors
from ...loaders.transfer import Upload
from ..cache.adapter import Adapter
from ..library.file import AdapterKey
from .device_adapter import Holds

_SPECS = "device specs"


@dataclass(slots=True, eq=False)
class ShelfPlace:
    """One adapter on the device. Mutable, under the lock of the shelf."""

    key: AdapterKey
    views: FlatViews
    upload: Upload
    last_used_s: float
    holds: Holds = field(default_factory=Holds)
    uses: int = 0
    """Demands since it came in."""

    @property
    def nbytes(self) -> int:
        return self.upload.nbytes

    @property
    def is_free(self) -> bool:
        """Nobody uses it, no stream works with it, no copy writes to it."""
        return self.upload.done and self.holds.is_free

    def wait(self) -> None:
        """Block this thread until the copies and the uses that have ended are through."""
        self.upload.wait()
        for moment in tuple(self.holds.moments):
            moment.wait()


@dataclass(slots=True, eq=False)
class ShelfFlight:
    """One upload in progress and everybody who waits for it."""

    next_use: int | None
    demands: int = 0
    nbytes: int = 0
    place: ShelfPlace | None = None
    landed: threading.Event = field(default_factory=threading.Event)


def specs_of(adapter: Adapter) -> Mapping[str, TensorSpec] | None:
    """Where its tensors stand in its one buffer, worked out once and kept beside it."""
    if adapter.buffer is None:
        return None
    specs = adapter.prepared.get(_SPECS)
    if not isinstance(specs, dict):
        found = specs_of_tensors(adapter.tensors, adapter.buffer)
        # Without a byte to send there is no buffer on the device either.
        has_bytes = any(spec.nbytes for spec in (found or {}).values())
        specs = adapter.prepared[_SPECS] = found if found and has_bytes else {}
    return specs
