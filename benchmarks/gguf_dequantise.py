"""Dequantising one 4096 x 4096 tensor: `loaders.dequantise` against gguf-py's own, taking turns in one process.

    python benchmarks/gguf_dequantise.py [--rounds 9] [--threads 2] [--types Q4_K Q6_K Q8_0] [--json OUT.json]

Both start from the same bytes, random but for finite scales, and make a new float32 array, which is compared bit for
bit. "cpu" is the processor time of all threads, which tells a busy machine from slow code. The bar is at least 1.8
times gguf-py's speed by the medians of the wall clock, for each type."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from written import write_report

from warmstack.loaders import dequantise
from warmstack.loaders.gguf.quant_types import GGUF_TYPES

BAR = 1.8
SHAPE = (4096, 4096)
TYPES = ("Q4_K", "Q6_K", "Q8_0")

Floats = NDArray[np.float32]


def main() -> None:
    options = _options()
    results = {name: _measure(name, options.rounds, options.threads) for name in options.types}
    passed = all(result["bit_equal"] and result["speedup"] >= BAR for result in results.values())
    report = {
        "benchmark": "gguf",
        "shape": SHAPE,
        "rounds": options.rounds,
        "threads": options.threads,
        "types": results,
        "bar": BAR,
        "passed": passed,
        "machine": {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "numpy": np.__version__,
        },
    }
    write_report(report, options.json)
    sys.exit(0 if passed else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    return parser.parse_args()


def _measure(name: str, rounds: int, threads: int) -> dict[str, object]:
    raw = _packed(name)
    contenders: dict[str, Callable[[], Floats]] = {
        "gguf-py": lambda: gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name]),
        "warmstack, 1 thread": lambda: dequantise(raw, name, SHAPE),
        f"warmstack, {threads} threads": lambda: dequantise(raw, name, SHAPE, threads=threads),
    }
    wall_s: dict[str, list[float]] = {contender: [] for contender in contenders}
    cpu_s: dict[str, list[float]] = {contender: [] for contender in contenders}
    expected = contenders["gguf-py"]().view(np.uint32)
    bit_equal = all(np.array_equal(make().view(np.uint32), expected) for make in contenders.values())
    for _ in range(rounds):
        for contender, make in contenders.items():
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            make()
            wall_s[contender].append(time.perf_counter() - started_s)
            cpu_s[contender].append(time.process_time() - started_cpu_s)
    medians = {contender: statistics.median(times) for contender, times in wall_s.items()}
    theirs, alone, together = medians.values()
    return {
        "bit_equal": bit_equal,
        "wall_s": medians,
        "cpu_s": {contender: statistics.median(times) for contender, times in cpu_s.items()},
        "speedup": theirs / together,
        "speedup_1_thread": theirs / alone,
    }


def _packed(name: str) -> NDArray[np.uint8]:
    kind = GGUF_TYPES[name]
    rows, row = SHAPE
    raw = np.random.default_rng(0).integers(0, 256, (rows, row // kind.block_elements, kind.block_bytes), np.uint8)
    # Bit 6 of a float16's high byte makes exponents large: without it no scale is infinite or undefined. Which bytes
    # are scales differs by type; the other bytes lose little by it.
    raw[..., :4] &= 0xBF
    raw[..., -2:] &= 0xBF
    return raw.reshape(rows, -1)


if __name__ == "__main__":
    main()
