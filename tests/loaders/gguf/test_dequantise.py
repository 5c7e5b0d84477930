"""Every type against gguf-py, compared as bits: NaN equals NaN only when it is the same one."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from itertools import count

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from warmstack.loaders.errors import LoadCancelledError, SafetensorsLoadError
from warmstack.loaders.gguf import chunks as gguf_chunks
from warmstack.loaders.gguf.chunks import drain
from warmstack.loaders.gguf.on_numpy import dequantise, refusal
from warmstack.loaders.gguf.on_torch import dequantise_tensor
from warmstack.loaders.gguf.quant_types import GGUF_TYPES, GgufType

WITHOUT_NUMBERS = {"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K", "Q1_0"}
TYPES = [kind for name, kind in GGUF_TYPES.items() if name not in WITHOUT_NUMBERS]
PACKED = [kind for kind in TYPES if not kind.plain]
BY_NAME = {"argvalues": TYPES, "ids": [kind.name for kind in TYPES]}

ODD_HALVES = np.array(
    [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0x7FFF, 0xFE00, 0xFC01, 0xFFFF],
    np.uint16,
)
"""Zeros, the smallest and largest numbers, infinities, and NaN of both kinds, signs and several payloads."""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_chunks, "CHUNK_ELEMENTS", 1024)


def random_blocks(kind: GgufType, rows: int, row_blocks: int, seed: int, odd_part: float = 0.05) -> NDArray[np.uint8]:
    """(rows, bytes) of noise, in which a part of all 16-bit words is one of ODD_HALVES: as scales, and as all else."""
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, rows * row_blocks * kind.block_bytes, dtype=np.uint8)
    words = raw[: raw.size // 2 * 2].view(np.uint16)
    chosen = generator.random(words.size) < odd_part
    words[chosen] = generator.choice(ODD_HALVES, int(chosen.sum()))
    return raw.reshape(rows, -1)


def reference(raw: NDArray[np.uint8], kind: GgufType) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind.name])


def assert_same_bits(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    different = actual.view(np.uint32) != expected.view(np.uint32)
    assert not different.any(), (actual[different][:4], expected[different][:4], int(different.sum()))


def test_every_type_that_gguf_dequantises_is_done_here():
    theirs = {"F32", "F16"} | {kind.name for kind in gguf.quants._type_traits}
    assert {kind.name for kind in TYPES} == {name for name, kind in GGUF_TYPES.items() if not refusal(kind)} == theirs


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", **BY_NAME)
def test_numpy_gives_the_bits_of_gguf(kind: GgufType, threads: int):
    for rows, row_blocks in ((1, 1), (7, 5), (33, 16)):
        raw = random_blocks(kind, rows, row_blocks, seed=rows)
        expected = reference(raw, kind)
        assert_same_bits(dequantise(raw, kind, expected.shape, threads=threads), expected)


@pytest.mark.parametrize("kind", **BY_NAME)
def test_chunks_of_full_size_give_the_same_bits(kind: GgufType):
    row_blocks = 1024 // kind.block_elements
    raw = random_blocks(kind, 513, row_blocks, seed=5)
    expected = reference(raw, kind)
    assert_same_bits(dequantise(raw, kind, expected.shape, threads=2), expected)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", **BY_NAME)
def test_torch_gives_the_bits_of_gguf(kind: GgufType):
    for rows, row_blocks in ((1, 1), (7, 5), (33, 16)):
        raw = random_blocks(kind, rows, row_blocks, seed=rows)
        expected = reference(raw, kind)
        actual = dequantise_tensor(torch.from_numpy(raw.reshape(-1)), kind, expected.shape).numpy()
        assert_same_bits(actual, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", **BY_NAME)
def test_a_gpu_gives_the_bits_of_gguf_but_for_the_kind_of_nan(kind: GgufType):
    raw = random_blocks(kind, 33, 16, seed=3)
    expected = reference(raw, kind)
    actual = dequantise_tensor(torch.from_numpy(raw.reshape(-1)).cuda(), kind, expected.shape).cpu().numpy()
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert_same_bits(actual[numbers], expected[numbers])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", **BY_NAME)
def test_everything_is_done_on_the_device_of_the_bytes(fake_gpu: torch.device, kind: GgufType, dtype: torch.dtype):
    packed = torch.empty(6 * kind.block_bytes, dtype=torch.uint8, device=fake_gpu)
    numbers = dequantise_tensor(packed, kind, (6, kind.block_elements), dtype)
    assert (numbers.device, numbers.dtype, tuple(numbers.shape)) == (fake_gpu, dtype, (6, kind.block_elements))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["Q4_1", "Q5_1"])
def test_a_last_block_of_two_nan_gives_the_bits_of_gguf(name: str):
    kind = GGUF_TYPES[name]
    for blocks in range(1, 70):
        raw = random_blocks(kind, blocks, 1, seed=blocks)
        raw[:, :4] = np.array([0xFC01, 0x7E00], "<u2").view(np.uint8)
        expected = reference(raw, kind)
        assert_same_bits(dequantise(raw, kind, expected.shape), expected)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(TYPES), seed=st.integers(0, 1 << 32), odd_part=st.sampled_from([0.0, 0.3, 1.0]))
def test_any_bytes_give_the_bits_of_gguf(kind: GgufType, seed: int, odd_part: float):
    raw = random_blocks(kind, 3, 3, seed, odd_part)
    expected = reference(raw, kind)
    assert_same_bits(dequantise(raw.tobytes(), kind.name, expected.shape), expected)
    assert_same_bits(dequantise_tensor(torch.from_numpy(raw.reshape(-1)), kind, expected.shape).numpy(), expected)


@pytest.mark.parametrize("name", ["MXFP4", "NVFP4"])
def test_every_scale_byte_gives_the_bits_of_gguf(name: str):
    kind = GGUF_TYPES[name]
    raw = random_blocks(kind, 256, 1, seed=1)
    raw[:, : 1 if name == "MXFP4" else 4] = np.arange(256, dtype=np.uint8)[:, None]
    expected = reference(raw, kind)
    assert_same_bits(dequantise(raw, kind, expected.shape), expected)


@pytest.mark.parametrize("kind", **BY_NAME)
def test_half_precision_is_rounded_from_float32(kind: GgufType):
    raw = random_blocks(kind, 5, 8, seed=2)
    expected = reference(raw, kind)
    with np.errstate(all="ignore"):
        halves = expected.astype(np.float16)
    actual = dequantise(raw, kind, expected.shape, np.float16)
    assert actual.dtype == np.float16
    numbers = ~np.isnan(halves)
    assert np.array_equal(np.isnan(actual), ~numbers)
    assert np.array_equal(actual[numbers].view(np.uint16), halves[numbers].view(np.uint16))


@pytest.mark.parametrize("shape", [(96,), (2, 3, 1, 16), (96, 1), (0, 32)])
def test_the_shape_is_the_one_asked_for(shape: tuple[int, ...]):
    kind = GGUF_TYPES["BF16"]
    raw = random_blocks(kind, 1, int(np.prod(shape)), seed=8).reshape(-1)
    assert dequantise(raw, kind, shape).shape == shape
    assert dequantise_tensor(torch.from_numpy(raw), kind, shape).shape == shape


@pytest.mark.parametrize("shape", [(2, 256), (128,), (1, 255)])
def test_bytes_that_are_not_the_shape_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="no Q4_K of shape"):
        dequantise(bytes(144), "Q4_K", shape)


@pytest.mark.parametrize("name", sorted(WITHOUT_NUMBERS))
def test_a_type_that_stays_packed_says_so(name: str):
    kind = GGUF_TYPES[name]
    with pytest.raises(SafetensorsLoadError, match=f"model.gguf: nothing dequantises {name}"):
        dequantise(bytes(kind.block_bytes), kind, (kind.block_elements,), name="model.gguf")
    with pytest.raises(SafetensorsLoadError, match=f"nothing dequantises {name}"):
        dequantise_tensor(torch.zeros(kind.block_bytes, dtype=torch.uint8), kind, (kind.block_elements,))


def answers(*given: bool) -> Iterator[bool]:
    yield from given
    raise AssertionError("asked again after it had cancelled")


@pytest.mark.usefixtures("small_chunks")
def test_a_cancel_is_seen_between_two_chunks():
    asked = answers(False, False, True)
    with pytest.raises(LoadCancelledError, match="w: cancelled"):
        dequantise(bytes(34 * 320), "Q8_0", (320, 32), cancelled=lambda: next(asked), name="w")


def test_torch_sees_a_cancel_too():
    with pytest.raises(LoadCancelledError, match="w: cancelled"):
        dequantise_tensor(
            torch.zeros(34, dtype=torch.uint8), GGUF_TYPES["Q8_0"], (32,), cancelled=lambda: True, name="w"
        )


@pytest.mark.parametrize("kind", PACKED, ids=[kind.name for kind in PACKED])
def test_memory_is_the_result_and_a_few_chunks(kind: GgufType):
    elements = 1 << 23
    raw = np.zeros(kind.nbytes((elements,)), np.uint8)
    dequantise(raw[: kind.block_bytes], kind, (kind.block_elements,))
    tracemalloc.start()
    dequantise(raw, kind, (elements,), threads=2)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * elements + (8 << 20)


@pytest.mark.parametrize("threads", [1, 2])
def test_infinite_scales_are_not_warned_about(threads: int):
    raw = np.zeros(GGUF_TYPES["Q4_K"].nbytes((1 << 19,)), np.uint8)
    raw.reshape(-1, 144)[:, :2] = np.array([0x7C00], "<u2").view(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(dequantise(raw, "Q4_K", (1 << 19,), np.float16, threads=threads)).all()


def test_after_an_error_no_chunk_begins():
    both = threading.Barrier(2, timeout=10)

    def work(chunk: int) -> None:
        if chunk < 2:
            both.wait()
        if chunk == 0:
            raise RuntimeError("first")

    # Endless: this returns because the other thread stops, or not at all.
    with pytest.raises(RuntimeError, match="first"):
        drain(count(), work, 2)
