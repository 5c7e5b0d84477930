"""Fused stacks equal the sum of their parts: to 1e-6 of the update in fp32, rounded once below that."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstack.lora.fusing.fuse import PlainLora, add_fused_, fits

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def reference_delta(lora: PlainLora, shape: tuple[int, ...]) -> torch.Tensor:
    """One adapter, in fp64, by the definition; Tucker as a sum over both ranks."""
    up, down = lora.up.double().flatten(1), lora.down.double()
    if lora.mid is not None:
        down = torch.einsum("pq...,qi->pi...", lora.mid.double(), down.flatten(1))
    return lora.scale * (up @ down.flatten(1)).reshape(shape)


def reference_update(loras: list[PlainLora], shape: tuple[int, ...]) -> torch.Tensor:
    total = torch.zeros(shape, dtype=torch.float64)
    for lora in loras:
        total += reference_delta(lora, shape)
    return total


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    kernel = draw(st.sampled_from([(), (1, 1), (3, 3), (3,)]))
    return (draw(st.integers(1, 48)), draw(st.integers(1, 40)), *kernel)


@st.composite
def loras_for(draw: st.DrawFn, shape: tuple[int, ...]) -> PlainLora:
    rank = draw(st.integers(1, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from(DTYPES))

    def factor(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    alpha = draw(st.floats(0.25, 64))
    strength = draw(st.floats(0.05, 2)) * draw(st.sampled_from([1, -1]))
    scale = strength * alpha / draw(st.sampled_from([rank, rank**0.5]))
    kernel = shape[2:]
    ones = (1,) * len(kernel)
    up = factor(shape[0], rank, *ones)
    if kernel and draw(st.booleans()):
        return PlainLora(up, factor(rank, shape[1], *ones), scale, factor(rank, rank, *kernel))
    return PlainLora(up, factor(rank, shape[1], *kernel), scale)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[tuple[int, ...], list[PlainLora]]:
    shape = draw(shapes())
    return shape, draw(st.lists(loras_for(shape), min_size=1, max_size=6))


def without_signs(lora: PlainLora) -> PlainLora:
    mid = None if lora.mid is None else lora.mid.abs()
    return PlainLora(lora.up.abs(), lora.down.abs(), abs(lora.scale), mid)


@settings(deadline=None, max_examples=120)
@given(stacks())
def test_an_update_differs_from_fp64_by_at_most_a_millionth(stack: tuple[tuple[int, ...], list[PlainLora]]) -> None:
    shape, loras = stack
    update = add_fused_(torch.zeros(shape), loras).double()
    # Cancellation between adapters and between ranks is the input's doing: the parts, not their sum, set the scale of
    # the error.
    parts = sum(float(reference_delta(without_signs(lora), shape).norm()) for lora in loras)
    assert (update - reference_update(loras, shape)).norm() <= 1e-6 * parts


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_file_that_nearly_cancel_are_as_exact_as_one_row(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(size, generator=generator).to(dtype) for size in ((96, 96), (96, 64)))
    rows = [PlainLora(up, down, strength) for strength in (1.0, -0.9)]
    update = add_fused_(torch.zeros(96, 64), rows).double()
    truth = reference_update(rows, (96, 64))
    assert (update - truth).norm() <= 1e-6 * truth.norm()


@settings(deadline=None, max_examples=40)
@given(stacks(), st.sampled_from([torch.float16, torch.bfloat16]))
def test_a_half_precision_weight_is_rounded_once(
    stack: tuple[tuple[int, ...], list[PlainLora]], dtype: torch.dtype
) -> None:
    shape, loras = stack
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = add_fused_(weight.float(), loras).to(dtype)
    assert torch.equal(add_fused_(weight, loras), expected)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_slice_of_a_fused_weight_leaves_the_rest_alone(data: st.DataObject) -> None:
    """q, k and v of one qkv weight: rows or columns of a larger weight, so a view that is not contiguous."""
    shape = data.draw(shapes())
    axis = data.draw(st.sampled_from([0, 1]))
    whole = list(shape)
    whole[axis] *= 3
    loras = data.draw(st.lists(loras_for(shape), min_size=1, max_size=3))
    weight = torch.randn(whole, generator=torch.Generator().manual_seed(2))
    before = weight.clone()
    part = weight.narrow(axis, shape[axis], shape[axis])
    expected = add_fused_(part.clone(), loras)
    assert add_fused_(part, loras) is part
    torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)
    for start in (0, 2 * shape[axis]):
        assert torch.equal(weight.narrow(axis, start, shape[axis]), before.narrow(axis, start, shape[axis]))


def test_a_channels_last_weight_is_updated_in_place() -> None:
    weight = torch.randn(8, 6, 3, 3).to(memory_format=torch.channels_last)
    lora = PlainLora(torch.randn(8, 2, 1, 1), torch.randn(2, 6, 3, 3), 0.5)
    expected = weight.double() + reference_delta(lora, (8, 6, 3, 3))
    assert add_fused_(weight, [lora]) is weight
    torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_scale_is_not_rounded_to_the_factors_dtype() -> None:
    """Folding it into bf16 factors would cost 1.6e-3 of the update."""
    factors = [(torch.randn(64, 8).bfloat16(), torch.randn(8, 64).bfloat16()) for _ in range(3)]
    loras = [PlainLora(up, down, 0.3 + 0.1 * i) for i, (up, down) in enumerate(factors)]
    expected = reference_update(loras, (64, 64))
    assert (add_fused_(torch.zeros(64, 64), loras).double() - expected).norm() <= 1e-6 * expected.norm()


@settings(deadline=None, max_examples=40)
@given(stacks())
def test_autocast_around_it_changes_no_bit(stack: tuple[tuple[int, ...], list[PlainLora]]) -> None:
    shape, loras = stack
    expected = add_fused_(torch.zeros(shape), loras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(add_fused_(torch.zeros(shape), loras), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("scales", [(0.5,), (0.5, 0.5), (0.5, 0.7)], ids=str)
def test_loras_of_any_device_are_added_where_the_weight_is(
    fake_gpu: torch.device, scales: tuple[float, ...], on_gpu: bool, dtype: torch.dtype
) -> None:
    where = fake_gpu if on_gpu else "cpu"

    def lora(rank: int, scale: float) -> PlainLora:
        up = torch.empty(64, rank, dtype=torch.bfloat16, device=where)
        return PlainLora(up, torch.empty(rank, 48, dtype=torch.float16, device=where), scale)

    weight = torch.empty(64, 48, dtype=dtype, device=fake_gpu)
    assert add_fused_(weight, [lora(4 << index, scale) for index, scale in enumerate(scales)]).device == fake_gpu


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scales", [(1e39,), (1e39, 1e39), (1e39, 1.0)], ids=str)
def test_a_scale_beyond_float32_overflows_as_in_the_host(scales: tuple[float, ...], dtype: torch.dtype) -> None:
    """Its own patch gives infinities there. A weight whose patch raised it takes for patched."""
    loras = [PlainLora(torch.ones(4, 1), torch.ones(1, 4), scale) for scale in scales]
    assert add_fused_(torch.zeros(4, 4, dtype=dtype), loras).isinf().all()


def test_nothing_to_add_changes_nothing() -> None:
    weight = torch.randn(4, 4)
    before = weight.clone()
    assert torch.equal(add_fused_(weight, []), before)


@pytest.mark.parametrize(
    "lora",
    [
        PlainLora(torch.ones(4, 2), torch.ones(2, 5), 1.0),
        PlainLora(torch.ones(3, 2), torch.ones(2, 4), 1.0),
        PlainLora(torch.ones(4, 2), torch.ones(3, 4), 1.0),
        PlainLora(torch.ones(4), torch.ones(4, 4), 1.0),
        PlainLora(torch.ones(4, 0), torch.ones(0, 4), 1.0),
        PlainLora(torch.ones(4, 2), torch.ones(2, 4), 1.0, torch.ones(3, 2, 1, 1)),
    ],
)
def test_a_lora_that_does_not_fit_is_refused_before_anything_is_added(lora: PlainLora) -> None:
    weight = torch.zeros(4, 4)
    good = PlainLora(torch.ones(4, 1), torch.ones(1, 4), 1.0)
    assert fits(good, weight.shape) and not fits(lora, weight.shape)
    with pytest.raises(ValueError, match="does not fit a weight of"):
        add_fused_(weight, [good, lora])
    assert torch.equal(weight, torch.zeros(4, 4))
