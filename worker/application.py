"""Application: what one `apply_to_pipeline` did, row by row. Immutable, holds no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from ..lora.cache.lease import AcquireOutcome
from ..lora.device.shelf_stats import ShelfSnapshot


class AppliedLora(NamedTuple):
    """One row of the stack, as it was applied."""

    name: str
    """As the catalog spells it."""
    category: str
    strength_model: float
    strength_clip: float
    outcome: AcquireOutcome
    wait_s: float
    """Seconds that the row was waited for."""
    nbytes: int
    matched: int
    """Modules of the pipeline that it updates."""
    unmatched: tuple[str, ...]
    matched_share: float
    """Share of the update's norm that applies."""
    device_outcome: AcquireOutcome | None = None
    """How the adapter was found on the pipeline's device; None when it was used from host memory."""
    warning: str = ""
    """What was written and takes no effect, or slows the run, in one line."""
    components: tuple[str, ...] = ()
    """Those that it updates: `unet`, `transformer_2`, ..."""
    left_out: tuple[str, ...] = ()
    """Components that it may be for as well, and that no row of the stack is for."""

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def as_json(self) -> dict[str, object]:
        return {field: list(value) if type(value) is tuple else value for field, value in self._asdict().items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, a line each."""
        lines = [self.warning] if self.warning else []
        if self.unmatched:
            total = self.matched + len(self.unmatched)
            lines.append(
                f"LoRA {self.name!r}: {len(self.unmatched)} of {total} parts are not in this pipeline "
                f"({self.matched_share:.0%} of its strength applies), the first is {self.unmatched[0]!r}"
            )
        lines += [
            f"LoRA {self.name!r} changes {', '.join(self.components)} alone; if it is for {component}, write "
            f'"target": "{component}" into its row'
            for component in self.left_out
        ]
        return tuple(lines)


class Application(NamedTuple):
    """One stack on one pipeline."""

    loras: tuple[AppliedLora, ...] = ()
    weights_updated: int = 0
    apply_s: float = 0.0
    """Seconds to fit and to write the weights, loads not included."""

    @property
    def wait_s(self) -> float:
        return sum(lora.wait_s for lora in self.loras)


class WorkerStatus(NamedTuple):
    """The worker at one moment."""

    files: int
    resident_bytes: int
    budget_bytes: int
    base_copy_bytes: int
    hits: int
    joins: int
    misses: int
    evictions: Mapping[str, int]
    process_bytes: int | None
    """Resident memory of the process; None unless monitoring is on."""
    device: ShelfSnapshot | None = None
    """Adapters on the pipelines' device."""
    device_problem: str = ""
    """Why there are none, or why it is slow; "" when nothing is wrong."""
