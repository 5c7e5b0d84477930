"""Beside: what a load of eight LoRAs in a thread costs those who share the interpreter with it."""

from __future__ import annotations

import asyncio
import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from safetensors.torch import load_file

from warmstack.loaders import load_loras_batch, read_tensors

_TICK_S = 0.001
Load = Callable[[], object]


def measure_beside(paths: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """loader -> seconds alone and beside a thread of pure Python, and how late an asyncio loop was beside it, in
    milliseconds: the 99th percentile of each round, and the worst of all. "kernel" reads the same bytes in the same
    calls and makes no tensors: what is left is the scheduler's."""
    loaders: dict[str, Load] = {
        "read_tensors": lambda: [read_tensors(path) for path in paths],
        "load_loras_batch, eager": lambda: load_loras_batch(paths, strategy="eager", workers=1),
        "load_loras_batch, auto": lambda: load_loras_batch(paths),
        "safetensors load_file": lambda: [load_file(path) for path in paths],
        "kernel": lambda: [_read(path) for path in paths],
        "nothing": lambda: time.sleep(1),
    }
    found: dict[str, Any] = {
        name: {"alone_s": [], "beside_s": [], "late_p99_ms": [], "late_max_ms": []} for name in loaders
    }
    for _ in range(rounds):
        for name, load in loaders.items():
            samples = found[name]
            late_ms = sorted(asyncio.run(_lateness_ms(load)))
            samples["late_p99_ms"].append(late_ms[int(len(late_ms) * 0.99)])
            samples["late_max_ms"].append(late_ms[-1])
            if name != "nothing":
                samples["alone_s"].append(_in_thread_s(load))
                samples["beside_s"].append(_beside_s(load))
    return found


def medians(found: dict[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, samples in found.items():
        row = {key: statistics.median(values) for key, values in samples.items() if values}
        if "alone_s" in row:
            row["times"] = row["beside_s"] / row["alone_s"]
        rows[name] = row
    return rows


def _in_thread_s(load: Load) -> float:
    """The tensors are let go of after the clock has stopped."""
    kept: list[object] = []
    seconds: list[float] = []

    def run() -> None:
        started_s = time.perf_counter()
        kept.append(load())
        seconds.append(time.perf_counter() - started_s)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seconds[0]


def _beside_s(load: Load) -> float:
    stop = False

    def busy() -> None:
        count = 0
        while not stop:
            count += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        return _in_thread_s(load)
    finally:
        stop = True
        thread.join()


async def _lateness_ms(load: Load) -> list[float]:
    kept: list[object] = []
    loading = asyncio.ensure_future(asyncio.to_thread(lambda: kept.append(load())))
    late_ms = []
    while not loading.done():
        started_s = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        late_ms.append((time.perf_counter() - started_s - _TICK_S) * 1000)
    await loading
    return late_ms


def _read(path: str) -> mmap.mmap:
    size_bytes = os.path.getsize(path)
    buffer = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    file = os.open(path, os.O_RDONLY)
    with memoryview(buffer) as memory:
        for offset in range(0, size_bytes, 32 << 20):
            os.preadv(file, [memory[offset : offset + (32 << 20)]], offset)
    os.close(file)
    return buffer
