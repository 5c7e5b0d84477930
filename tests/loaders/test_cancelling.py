"""Who waits goes away, or cannot say whether they have: a load ends soon, and says whose fault it was."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    DeviceTransfer,
    FakeDevice,
    LoadRequest,
    LoadResult,
    ModelLoader,
    Pace,
    RateLimit,
    StrategyRegistry,
    batch,
    dequantise,
    drop_file,
    fill_module,
    load_loras_batch,
    module_filling,
    warm_file,
)
from warmstack.loaders.gguf.chunks import CHUNK_ELEMENTS
from warmstack.loaders.gguf.load import load_gguf
from warmstack.loaders.gguf.on_torch import dequantise_tensor
from warmstack.loaders.gguf.quant_types import GGUF_TYPES
from warmstack.loaders.strategies import gathering
from warmstack.loaders.upload.uploads import Uploads

from .gguf.gguf_files import RawTensor, gguf_bytes

STRATEGIES = [*StrategyRegistry.default().strategies]
ctrl_c = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system sends no signal to a thread")


@pytest.fixture
def files(large, tmp_path: Path) -> list[str]:
    other = tmp_path / "other.safetensors"
    save_file({"other": torch.zeros(32 << 20, dtype=torch.uint8)}, other)
    return [large[0], str(other)]


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    kind, elements = GGUF_TYPES["Q4_0"], 20 * CHUNK_ELEMENTS
    path = tmp_path / "large.gguf"
    data = bytes(elements // kind.block_elements * kind.block_bytes)
    path.write_bytes(gguf_bytes([RawTensor("large", (elements,), kind.code, 0)], data=data))
    return path


class PressedOnce:
    """Takes the first chunk for a user who presses Ctrl-C, and the others as slowly as a slow disk."""

    def __init__(self) -> None:
        self.arrived_bytes = 0

    def __call__(self, path: str, nbytes: int, at: object) -> None:
        pressed, self.arrived_bytes = self.arrived_bytes > 0, self.arrived_bytes + nbytes
        if not pressed:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.25)


def stops(load: Callable[[Pace], object], total_bytes: int) -> None:
    user = PressedOnce()
    # A shell has its jobs in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(Pace(reached=user))
    finally:
        signal.signal(signal.SIGINT, before)
    assert 0 < user.arrived_bytes < 0.8 * total_bytes


@ctrl_c
@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "lazy"])
def test_ctrl_c_ends_a_load_and_not_only_the_wait_for_it(files: list[str], name: str, is_cold: bool):
    used = files if name == "parallel" else files[:1]
    if is_cold:
        for path in used:
            drop_file(path)
    load = StrategyRegistry.default().strategies[name].load
    stops(lambda pace: load(LoadRequest(tuple(used), pace=pace)), sum(Path(path).stat().st_size for path in used))


@ctrl_c
def test_ctrl_c_ends_a_batch(files: list[str], monkeypatch: pytest.MonkeyPatch):
    load = batch.load_request

    def watched(pace: Pace) -> object:
        def load_watched(request: LoadRequest, strategy: str) -> LoadResult:
            return load(replace(request, pace=replace(request.pace, reached=pace.reached)), strategy)

        monkeypatch.setattr(batch, "load_request", load_watched)
        return load_loras_batch(files, strategy="eager")

    stops(watched, sum(Path(path).stat().st_size for path in files))


@ctrl_c
def test_ctrl_c_ends_a_gguf(gguf: Path):
    stops(lambda pace: load_gguf(gguf, torch.float16, threads=2, pace=pace), gguf.stat().st_size)


class Hangup:
    """`cancelled` of a caller who is soon unable to say: asked once more than `answers` often, it raises `error`."""

    def __init__(self, error: Exception, answers: int) -> None:
        self.error = error
        self.left = answers

    def __call__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return False


failures = pytest.mark.parametrize("failure", [TimeoutError, RuntimeError, TypeError])
"""Python takes a deadline, or a client that hangs up, for an OSError."""


def comes_out(load: Callable[[Hangup], object], failure: type[Exception], answers: int) -> None:
    late = Hangup(failure("the client is gone"), answers)
    with pytest.raises(failure) as caught:
        load(late)
    assert caught.value is late.error
    # Though its frames are held: left to the garbage collector, readers are waited for wherever that comes, and when it
    # comes while a thread is being started, for ever.
    assert caught.value.__traceback__ is not None
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("warmstack-stream")]


@failures
@pytest.mark.parametrize("is_cold", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_asking_raises_is_not_taken_for_the_files_fault(
    files: list[str], name: str, is_cold: bool, failure: type[Exception]
):
    used = files if name == "parallel" else files[:1]
    if is_cold:
        for path in used:
            drop_file(path)
    loader = ModelLoader(name, dtype=torch.float16)
    comes_out(lambda late: loader.load_shards(used, cancelled=late), failure, answers=1)


@failures
@pytest.mark.parametrize("name", STRATEGIES)
def test_what_asking_raises_is_not_taken_for_the_devices_fault(
    files: list[str], name: str, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    device = FakeDevice()
    monkeypatch.setattr(gathering, "Uploads", partial(Uploads, lambda _: device))

    class LateWhileItIsSent(Hangup):
        def __call__(self) -> bool:
            return device.copies > 0 and super().__call__()

    loader = ModelLoader(name, device="cuda:0")
    used = files if name == "parallel" else files[:1]
    comes_out(lambda late: loader.load_shards(used, cancelled=LateWhileItIsSent(late.error, 0)), failure, answers=0)
    assert device.in_flight == 0


@failures
@pytest.mark.parametrize("answers", range(4))
def test_what_asking_raises_comes_out_of_an_upload(large, gguf: Path, failure: type[Exception], answers: int):
    path, tensors = large
    with DeviceTransfer(FakeDevice(), slot_bytes=1 << 20) as transfer:
        comes_out(lambda late: transfer.upload_file(path, pace=Pace(late)), failure, answers)
        comes_out(lambda late: transfer.upload("ink", tensors, cancelled=late), failure, answers)
        comes_out(lambda late: load_gguf(gguf, pace=Pace(late), transfer=transfer), failure, answers)


@failures
def test_what_asking_raises_comes_out_of_every_door(
    files: list[str], gguf: Path, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module_filling, "Uploads", partial(Uploads, lambda _: FakeDevice()))
    module = torch.nn.Module()
    module.register_buffer("other", torch.empty(32 << 20, dtype=torch.uint8, device="meta"))
    for answers in range(4):
        comes_out(lambda late: fill_module(module, files[1:], device="cuda:0", cancelled=late), failure, answers)
        comes_out(lambda late: load_gguf(gguf, torch.float16, threads=2, pace=Pace(late)), failure, answers)
        comes_out(lambda late: warm_file(files[1], cancelled=late, chunk_bytes=1 << 20), failure, answers)


DOORS: dict[str, Callable[[], object]] = {
    "upload": lambda: DeviceTransfer(FakeDevice()).upload("ink", {"a": torch.ones(1 << 20)}, cancelled=None),
    "dequantise": lambda: dequantise(bytes(18 * 4), "Q4_0", (128,), cancelled=None),
    "dequantise_tensor": lambda: dequantise_tensor(
        torch.zeros(18 * 4, dtype=torch.uint8), GGUF_TYPES["Q4_0"], (128,), cancelled=None
    ),
    "RateLimit": lambda: RateLimit(1 << 20).spend(1 << 10, None),
}


@pytest.mark.parametrize("name", DOORS)
def test_who_passes_on_that_nobody_asks_is_never_stopped(name: str):
    DOORS[name]()


def test_a_strategy_of_ones_own_sees_whether_it_is_to_stop():
    assert [Pace(cancelled).stopped for cancelled in (None, lambda: False, lambda: True)] == [False, False, True]


def test_an_answer_that_is_missing_is_not_taken_for_the_end_of_the_file(gguf: Path):
    answers = iter([False, False])
    with pytest.raises(StopIteration):
        load_gguf(gguf, torch.float16, threads=2, pace=Pace(answers.__next__))
