"""bfloat16 factors on CPUs with matrix tiles: as exact as float32, whichever way the product is computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from warmstack.lora.fusing.bf16_gemm import Bf16Gemm, bf16_gemm, parts_of
from warmstack.lora.fusing.fuse import PlainLora, add_bf16_factors_, add_fused_

from .test_fuse import reference_update, without_signs


def plain_gemm(c: Tensor, a: Tensor, b: Tensor) -> None:
    """The definition, on any machine."""
    assert (c.dtype, a.dtype, b.dtype) == (torch.float32, torch.bfloat16, torch.bfloat16)
    c += a.float() @ b.float()


GEMMS = [plain_gemm, *([] if (tiles := bf16_gemm()) is None else [tiles])]
NAMES = ["by the definition", "on tiles"][: len(GEMMS)]


def lora_of(seed: int, shape: tuple[int, int], rank: int, scale: float) -> PlainLora:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
    return PlainLora(up.bfloat16(), down.bfloat16(), scale)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[tuple[int, int], list[PlainLora]]:
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    ranks, scales = st.integers(1, 48), st.floats(0.01, 40) | st.floats(-40, -0.01)
    seeds = st.integers(0, 2**31)
    return shape, draw(st.lists(st.builds(lora_of, seeds, st.just(shape), ranks, scales), min_size=1, max_size=8))


@pytest.mark.parametrize("gemm", GEMMS, ids=NAMES)
@settings(deadline=None, max_examples=100)
@given(stack=stacks())
def test_an_update_differs_from_fp64_by_at_most_a_millionth(
    gemm: Bf16Gemm, stack: tuple[tuple[int, int], list[PlainLora]]
) -> None:
    shape, loras = stack
    update = torch.zeros(shape)
    add_bf16_factors_(update, loras, gemm)
    parts = reference_update([without_signs(lora) for lora in loras], shape).norm()
    assert (update.double() - reference_update(loras, shape)).norm() <= 1e-6 * parts


@pytest.mark.parametrize("gemm", GEMMS, ids=NAMES)
def test_the_defaults_of_the_process_do_not_matter(gemm: Bf16Gemm, request: pytest.FixtureRequest) -> None:
    loras = [lora_of(seed, (24, 40), 32, 0.3 + seed / 7) for seed in range(3)]
    expected, update = torch.zeros(24, 40), torch.zeros(24, 40)
    add_bf16_factors_(expected, loras, gemm)
    request.getfixturevalue("other_defaults")
    add_bf16_factors_(update, loras, gemm)
    assert torch.equal(update, expected)


@pytest.mark.parametrize("gemm", GEMMS, ids=NAMES)
def test_rows_and_columns_of_a_larger_weight_leave_the_rest_alone(gemm: Bf16Gemm) -> None:
    loras = [lora_of(seed, (24, 40), 32, 0.3) for seed in range(8)]
    for rows, columns in ((slice(8, 32), slice(0, 40)), (slice(0, 24), slice(30, 70))):
        weight = torch.zeros(rows.stop + 8, columns.stop + 8)
        add_bf16_factors_(weight[rows, columns], loras, gemm)
        update = weight[rows, columns].clone()
        torch.testing.assert_close(update.double(), reference_update(loras, (24, 40)), rtol=1e-4, atol=1e-4)
        weight[rows, columns] = 0
        assert not weight.any()


@pytest.mark.parametrize("gemm", GEMMS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)])
def test_one_row_or_column_may_have_any_stride(gemm: Bf16Gemm, shape: tuple[int, int]) -> None:
    """The step to a next row that does not exist: the library refuses one that is too short, and then adds nothing."""
    lora = lora_of(1, shape, 96, 0.5)
    odd = PlainLora(lora.up.t().contiguous().t(), lora.down.t().contiguous().t(), 0.5)
    weight = torch.zeros(shape[::-1]).t()
    for one in (lora, odd):
        update = torch.zeros_like(weight)
        update = update.as_strided(shape, (1, 1) if 1 in shape else update.stride())
        add_bf16_factors_(update, [one], gemm)
        torch.testing.assert_close(update.double(), reference_update([one], shape), rtol=1e-4, atol=1e-4)


@given(st.lists(st.floats(2.0**-80, 2.0**100, width=32).flatmap(lambda x: st.sampled_from([x, -x])), min_size=1))
def test_three_parts_are_the_whole_to_the_last_bit(numbers: list[float]) -> None:
    factor = torch.tensor(numbers)
    assert torch.equal(sum(part.double() for part in parts_of(factor)), factor.double())


@pytest.mark.skipif(len(GEMMS) == 1, reason="this CPU has no matrix tiles, or torch another math library")
def test_factors_of_other_kinds_go_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def counted(c: Tensor, a: Tensor, b: Tensor) -> None:
        calls.append(tuple(c.shape))
        GEMMS[1](c, a, b)

    monkeypatch.setattr("warmstack.lora.fusing.fuse.bf16_gemm", lambda: counted)
    one, few = lora_of(0, (16, 16), 64, 0.5), lora_of(0, (16, 16), 32, 0.5)
    add_fused_(torch.zeros(16, 16), [one])
    assert calls == [(16, 16)]
    half = PlainLora(one.up.half(), one.down.half(), 0.5)
    tucker = PlainLora(one.up, one.down, 0.5, torch.ones(64, 64, 1, dtype=torch.bfloat16))
    for weight, loras in (
        (torch.zeros(16, 16), [few]),
        (torch.zeros(16, 16), [one, half]),
        (torch.zeros(16, 16, dtype=torch.float64), [one]),
        (torch.zeros(16, 16).t(), [one]),
        (torch.zeros(16, 16, 1), [tucker]),
    ):
        update = add_fused_(weight.clone(memory_format=torch.preserve_format), loras)
        torch.testing.assert_close(update.double(), reference_update(loras, tuple(weight.shape)), rtol=1e-3, atol=1e-2)
    assert calls == [(16, 16)]
