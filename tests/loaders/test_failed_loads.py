"""What a failed load had read is free at once, and not when the collector of cycles comes by."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    LoadCancelledError,
    LoadingMetrics,
    LoadRequest,
    LoadResult,
    ModelLoader,
    Pace,
    SafetensorsCache,
    SafetensorsLoadError,
    SpareMemory,
    StrategyRegistry,
    batch,
    fill_module,
    load_loras_batch,
)
from warmstack.loaders.gguf.chunks import CHUNK_ELEMENTS
from warmstack.loaders.gguf.load import load_gguf
from warmstack.loaders.gguf.quant_types import GGUF_TYPES
from warmstack.loaders.reading import stream as module

from .gguf.gguf_files import RawTensor, gguf_bytes

_LARGE_BYTES = 8 << 20


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(2)]
    for number, path in enumerate(paths):
        save_file({f"{number}.{part}": torch.zeros(_LARGE_BYTES, dtype=torch.uint8) for part in "ab"}, path)
    return paths


@pytest.fixture
def spare() -> SpareMemory:
    return SpareMemory(1 << 30)


def change(path: str) -> None:
    os.utime(path, ns=(1, 1))


def fails(load: Callable[[], object], match: str = "changed while") -> None:
    """Without pytest.raises, which keeps the error in a cycle of its own."""
    reference = None
    try:
        load()
    except SafetensorsLoadError as error:
        assert match in str(error)
        reference = weakref.ref(error)
    assert reference is not None
    assert reference() is None, "the error is kept"


@pytest.mark.parametrize("strategy", ["eager", "fast_single_file", "parallel", "parallel_async_lazy"])
def test_of_a_file_that_changes(files: list[str], spare: SpareMemory, strategy: str):
    load = ModelLoader(strategy, spare=spare).load_shards
    used = files if strategy == "parallel" else files[:1]
    fails(lambda: load(used, progress=lambda _: change(used[-1])))
    assert spare.held_bytes >= 2 * _LARGE_BYTES


@pytest.mark.parametrize("strategy", [*StrategyRegistry.default().strategies])
def test_of_a_load_that_is_cancelled(files: list[str], strategy: str):
    used = files if strategy == "parallel" else files[:1]
    fails(lambda: ModelLoader(strategy).load_shards(used, cancelled=lambda: True), "cancelled")


def test_of_a_gguf_file(tmp_path: Path):
    kind, elements = GGUF_TYPES["Q4_0"], 10 * CHUNK_ELEMENTS
    raw = RawTensor("large", (elements,), kind.code, 0)
    path = tmp_path / "large.gguf"
    path.write_bytes(gguf_bytes([raw], data=bytes(elements // kind.block_elements * kind.block_bytes)))
    seen: list[int] = []
    pace = Pace(cancelled=lambda: len(seen) > 3, reached=lambda _, nbytes, at: seen.append(nbytes))
    fails(lambda: load_gguf(path, torch.float16, threads=2, pace=pace), "cancelled")


def test_of_a_cached_load(files: list[str], spare: SpareMemory):
    cache = SafetensorsCache(1 << 30)
    request = LoadRequest((files[0],), pace=Pace(reached=lambda path, *_: change(path)), spare=spare)
    fails(lambda: cache.load(request, "eager"))
    assert spare.held_bytes >= 2 * _LARGE_BYTES


@pytest.mark.parametrize("fill", [False, True])
def test_of_a_stream(files: list[str], monkeypatch, fill: bool):
    read: list[weakref.ref[object]] = []
    memory = module._memory

    def noted(path: str, nbytes: int) -> object:
        buffer = memory(path, nbytes)
        read.append(weakref.ref(buffer))
        return buffer

    monkeypatch.setattr(module, "_memory", noted)
    if fill:
        model = torch.nn.ParameterDict()
        for number in range(2):
            part = {name: torch.nn.Parameter(torch.zeros(_LARGE_BYTES, dtype=torch.uint8), False) for name in "ab"}
            model[str(number)] = torch.nn.ParameterDict(part)
        fails(lambda: fill_module(model, files, progress=lambda _: change(files[1])))
        del model
    else:
        fails(lambda: ModelLoader("streaming").load_shards(files, progress=lambda _: change(files[1])))
    assert len(read) >= 3
    assert not any(buffer() is not None for buffer in read)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("go_on", [False, True])
def test_of_a_batch(files: list[str], monkeypatch, workers: int, go_on: bool):
    """What the others had loaded, even while the error is kept."""
    loaded: list[weakref.ref[torch.Tensor]] = []
    last = str(Path(files[0]).with_name("last.safetensors"))

    def load(request: LoadRequest, strategy: str) -> LoadResult:
        if request.paths == (last,):
            raise LoadCancelledError(last, "on purpose") if go_on else SafetensorsLoadError(last, "on purpose")
        tensor = torch.ones(3)
        loaded.append(weakref.ref(tensor))
        return LoadResult({"a": tensor}, {}, LoadingMetrics(strategy, 1, 1, 12, 12, 0.0, {}))

    monkeypatch.setattr(batch, "load_request", load)
    with pytest.raises(SafetensorsLoadError, match="on purpose") as caught:
        load_loras_batch([*files, last], workers=workers, continue_on_error=go_on)
    assert caught.value.__traceback__ is not None
    assert loaded
    assert [tensor() for tensor in loaded] == [None] * len(loaded)
    del caught
    fails(lambda: load_loras_batch([*files, last], workers=workers, continue_on_error=go_on), "on purpose")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("max_bytes", [None, 1 << 30, 1])
def test_of_a_batch_with_a_file_that_is_missing(files: list[str], workers: int, max_bytes: int | None):
    paths = [*files, str(Path(files[0]).with_name("absent.safetensors"))]
    match = "max_bytes" if max_bytes == 1 else "No such file"
    fails(lambda: load_loras_batch(paths, workers=workers, max_bytes=max_bytes), match)
