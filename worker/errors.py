"""Errors of `worker`, each of one row or one pipeline.

LoraError                   of `lora`, and the base of these too
├── StackError              some rows of a stack cannot be applied; `problems` has each one's error
├── WrongModelError         the LoRA was made for another model
├── TargetError             of two denoisers, it is not clear or not possible which one the LoRA is for
├── UnsupportedLoraError    the file is a LoRA that cannot be applied here as its author meant it
├── OffloadedError          the weights to write are not in memory now
└── QuantisedError          the weights that the LoRA is for are packed, or computed from others
"""

from __future__ import annotations

from ..lora.errors import LoraError


class StackError(LoraError):
    """Some rows of a stack cannot be applied; `problems` has each one's error. The pipeline has its base weights."""

    def __init__(self, problems: tuple[LoraError, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class WrongModelError(LoraError):
    """The LoRA was made for another model: nothing of it, or not its shapes, meets this pipeline."""


class TargetError(LoraError):
    """The denoiser that a row or its file names is not there, or the row names one and its file two."""


class UnsupportedLoraError(LoraError):
    """The file is a LoRA that cannot be applied here as its author meant it; refused rather than applied wrong."""


class OffloadedError(LoraError):
    """Weights to write are not in memory now, so that writing would change nothing."""


class QuantisedError(LoraError):
    """The weights that the LoRA is for are packed, or computed from others: nothing can be added to them."""
