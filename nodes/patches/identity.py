"""The identity of an applied stack: equal stacks on one model are one set of patches to the host."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from ...lora.library.file import AdapterKey


def stack_uuid(
    base: uuid.UUID, rows: Sequence[tuple[AdapterKey, float]], *, math: str, fingerprint: str, side: str
) -> uuid.UUID:
    """uuid5 of everything that the patched weights of one side ("model" or "clip") depend on.

    The host re-patches a model whenever the uuid differs from the one it was patched with, and never compares the
    patches themselves: a random uuid per run costs a full re-patch for an unchanged stack. `base` is random per loaded
    model, so no uuid outlives the process that made it and the version of this pack need not be part of it.
    """
    content = repr((side, math, fingerprint, [(tuple(key), strength.hex()) for key, strength in rows]))
    return uuid.uuid5(base, content)
