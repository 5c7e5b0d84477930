"""Break: one text of the code replaced by a wrong one, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Break:
    """`old`, which stands exactly once in `file`, becomes `new`."""

    says: str
    """What is wrong then."""
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """All of them must fail; of a file, one of its tests."""
