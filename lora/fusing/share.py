"""How much of a LoRA finds its weights: one figure for every front."""

from __future__ import annotations

import math
from collections.abc import Collection


def matched_share(matched_norms: Collection[float], lost_norms: Collection[float]) -> float | None:
    """Frobenius norm of what meets a weight over that of the whole update, 0..1. Updates of different weights are at
    right angles, so that of all together is the root of the sum of their squares: of two equal ones, each is 71%.

    None where the norms do not tell: none is above 0, or one is infinite, in a broken file, or NaN."""
    whole = math.hypot(*matched_norms, *lost_norms)
    return math.hypot(*matched_norms) / whole if 0 < whole < math.inf else None


def share_of_equals(matched: int, lost: int) -> float:
    """That share where the norms do not tell, as if all of the modules changed as much. 0 without any."""
    return matched_share([1.0] * matched, [1.0] * lost) or 0.0
