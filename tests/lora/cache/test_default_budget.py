"""The default budget leaves enough of the memory to others."""

from __future__ import annotations

import psutil
import pytest

from warmstack.loaders.memory.host_memory import Memory
from warmstack.lora.cache.default_budget import budget_for, default_budget_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("total_gib", "available_gib", "expected_gib"),
    [
        (16, 14, 4),  # a quarter
        (128, 100, 8),  # at most 8 GiB
        (32, 5, 3),  # what is available, less 2 GiB
        (8, 1.5, 0.5),  # less an eighth on a small machine
        (32, 1, 0),  # nothing to spare: everything streams
    ],
)
def test_a_budget_is_a_quarter_bounded_by_what_is_available(
    total_gib: float, available_gib: float, expected_gib: float
) -> None:
    assert budget_for(Memory(int(total_gib * GIB), int(available_gib * GIB))) == expected_gib * GIB


def test_this_machine_has_a_budget_within_its_memory() -> None:
    assert 0 <= default_budget_bytes() <= min(8 * GIB, psutil.virtual_memory().total // 4)
