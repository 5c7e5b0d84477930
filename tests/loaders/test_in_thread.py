"""Another thread does what this one would: torch keeps its modes by the thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import load_loras_batch, load_safetensors_robust
from warmstack.loaders.in_thread import as_here


def modes() -> tuple[object, ...]:
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None,
    )


CONTEXTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("outer", CONTEXTS)
@pytest.mark.parametrize("inner", CONTEXTS)
def test_a_call_finds_the_modes_of_where_it_was_made(outer: str, inner: str) -> None:
    plain = modes()
    with ThreadPoolExecutor(1) as pool:
        with CONTEXTS[outer](), CONTEXTS[inner]():
            here, there = modes(), as_here(modes)
        assert here != plain
        assert pool.submit(there).result() == here
        assert pool.submit(modes).result() == plain, "the thread's own are as they were"


@pytest.mark.parametrize("is_inference", [False, True])
def test_a_load_in_a_thread_makes_what_one_here_would(is_inference: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.rand(4)}, path)
    with torch.inference_mode(is_inference):
        here = load_safetensors_robust(path, dtype=torch.float16)
        loaded = asyncio.run(load_safetensors_robust(path, dtype=torch.float16, use_async=True))
        together = load_loras_batch([path], dtype=torch.float16, workers=2)[str(path)]
    assert [tensors["a"].is_inference() for tensors in (here, loaded, together)] == [is_inference] * 3
