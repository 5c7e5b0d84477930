"""The matched share is that of norms: root of squares, and nothing where the norms do not tell."""

from __future__ import annotations

import math

import pytest
import torch

from warmstack.lora.fusing.share import matched_share, share_of_equals


def test_the_share_is_the_norm_of_the_part_over_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    updates = [torch.randn(8, 4, generator=generator) * scale for scale in (3, 1, 0.5)]
    norms = [float(update.norm()) for update in updates]
    whole = float(torch.cat(updates).norm())
    for matched in range(1, 4):
        expected = float(torch.cat(updates[:matched]).norm()) / whole
        assert matched_share(norms[:matched], norms[matched:]) == pytest.approx(expected)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_norm_that_is_no_number_leaves_no_share(broken: float) -> None:
    assert matched_share([1.0, broken], [1.0]) is matched_share([1.0], [broken]) is None
    assert matched_share([0.0], [0.0]) is matched_share([], []) is None


def test_equal_modules_share_as_equal_norms_do() -> None:
    assert share_of_equals(1, 3) == pytest.approx(0.5)
    assert (share_of_equals(2, 0), share_of_equals(0, 2), share_of_equals(0, 0)) == (1.0, 0.0, 0.0)
