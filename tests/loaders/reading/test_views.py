"""Views of one buffer: types that take turns, holes between them, odd addresses."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders.files.tensor_entry import DTYPE_BITS, TensorEntry
from warmstack.loaders.reading.views import view_tensors

DTYPES = {"F16": torch.float16, "F32": torch.float32, "U8": torch.uint8, "F64": torch.float64}
TENSORS = st.lists(
    st.tuples(
        st.sampled_from(sorted(DTYPES)),
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.sampled_from([0, 0, 0, 1, 2, 8]),
    ),
    max_size=12,
)


@given(tensors=TENSORS, data_start=st.integers(0, 9))
def test_each_view_shows_its_own_bytes(tensors: list[tuple[str, tuple[int, ...], int]], data_start: int):
    entries, end = {}, 0
    for index, (dtype, shape, hole_bytes) in enumerate(tensors):
        start = end + hole_bytes
        end = start + torch.Size(shape).numel() * DTYPE_BITS[dtype] // 8
        entries[f"tensor {index}"] = TensorEntry(dtype, shape, start, end)
    buffer = bytearray((7 * place) % 251 for place in range(data_start + end + 3))

    views = view_tensors("", buffer, entries, data_start)

    assert list(views) == list(entries)
    for key, (dtype, shape, start, end) in entries.items():
        view = views[key]
        assert (view.dtype, tuple(view.shape), view.is_contiguous()) == (DTYPES[dtype], shape, True)
        raw = bytes(buffer[data_start + start : data_start + end])
        assert view.reshape(-1).clone().view(torch.uint8).tolist() == list(raw)


def test_a_file_of_views_costs_few_calls_that_let_the_interpreter_go():
    entries = {f"{index}": TensorEntry("F16", (2, 3), 12 * index, 12 * index + 12) for index in range(500)}
    counted = _Counted()
    with counted:
        view_tensors("", bytearray(6000), entries, 0)
    assert counted.calls < 10


def test_a_device_that_is_the_default_just_now_takes_no_part():
    entries = {"full": TensorEntry("F16", (2,), 0, 4), "empty": TensorEntry("F16", (0,), 4, 4)}
    with torch.device("meta"):
        views = view_tensors("", bytearray(4), entries, 0)
    assert {view.device.type for view in views.values()} == {"cpu"}


class _Counted(torch.overrides.TorchFunctionMode):
    """Calls into torch."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))
