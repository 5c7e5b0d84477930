"""Settings of the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings

if TYPE_CHECKING:
    import torch

# A machine that runs other things as well is no reason for a test to fail.
settings.register_profile("hunt", deadline=None, print_blob=True)
# The same draws every time: a change is judged by what it changed. New draws are `make hunt`.
settings.register_profile("suite", settings.get_profile("hunt"), derandomize=True)
# What scripts/break_invariants.py has broken fails; the smallest example of it is nobody's question.
settings.register_profile("breaks", settings.get_profile("suite"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        # A build without CUDA, or a broken driver, would otherwise look like a GPU on which everything works.
        if os.environ.get("WARMSTACK_REQUIRE_GPU") == "1":
            pytest.fail("needs a CUDA device, and torch sees none", pytrace=False)
        pytest.skip("needs a CUDA device")


@pytest.fixture
def other_defaults() -> Iterator[None]:
    """What a script, or another pack, may have left set in the process: a device and a dtype of its own."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def fake_gpu() -> Iterator[torch.device]:
    """A device beside the CPU, where there is no GPU: inside, tensors have no bytes, and those of two devices meet in
    no operator. It is "meta" because a torch without CUDA cannot index into a "cuda"."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    # What torch.frombuffer makes is a real tensor, on the CPU.
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("meta")
