"""Numbers of bytes as people write them."""

from __future__ import annotations

import math
import re

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(I?B)?|B)?\s*", re.IGNORECASE)


def parse_bytes(size: float | str) -> int:
    """A number, or text as Accelerate reads it for `max_memory`: `6GB` is 6,000,000,000, and so is `6G`; `6 GiB` is
    6 x 2^30. Case does not count. Raises ValueError."""
    nbytes = _parsed(size) if isinstance(size, str) else size
    if isinstance(nbytes, bool) or not isinstance(nbytes, int | float) or not 0 <= nbytes < math.inf:
        raise ValueError(f"{size!r} is no number of bytes; write 6GiB, 500MB or a plain number")
    return int(nbytes)


def _parsed(text: str) -> float:
    """Infinite when it is no size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return math.inf
    number, prefix, unit = match.groups("")
    base = 1024.0 if unit.upper() == "IB" else 1000.0
    return float(number) * base ** " KMGT".index(prefix.upper() or " ")
