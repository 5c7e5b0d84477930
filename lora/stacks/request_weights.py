"""RequestWeights: what a request multiplies its rows by, see `request.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..library.categories import category_key


@dataclass(frozen=True, slots=True)
class RequestWeights:
    """One weight over everything, and one over each of some categories."""

    everywhere: float
    by_category: Mapping[str, float] = field(hash=False)
    """By `category_key`."""

    @property
    def ask_for_category(self) -> bool:
        """False when every category weighs the same."""
        return bool(self.by_category and self.everywhere)

    def of(self, category: str) -> float:
        """For a row in `category`: the nearest one above it counts."""
        category = category_key(category)
        while category:
            if category in self.by_category:
                return self.everywhere * self.by_category[category]
            category = category.rpartition("/")[0]
        return self.everywhere
