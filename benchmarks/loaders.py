"""Every loading strategy against `safetensors.torch.load_file`, on the same files, rounds interleaved in one process.

    python benchmarks/loaders.py [--rounds 5] [--checkpoint-mb 1000] [--folder DIR] [--json OUT.json]

Workloads: one LoRA (2,166 tensors), a batch of four, one checkpoint, the same in five shards, 30% of it by prefix.
Warm: all of it in the page cache. Cold: dropped with posix_fadvise and checked. Every page of what was loaded is
touched before the clock stops, so that mapped tensors pay for what they put off. Median seconds, JSON. Two floors are
measured in the same rounds: copying the bytes in memory with one thread, and reading them past the page cache with
four."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from warmstack.loaders import DeviceMap, LoadRequest, Pace, StrategyRegistry, drop_file, read_header, resident_bytes
from warmstack.loaders import warm_file as warm
from warmstack.loaders.direct import can_read_directly, read_tensors_directly
from warmstack.loaders.robust import load_request

MODULES, RANK, WIDTH = 722, 32, 2400
"""The tensor count and the size of an SDXL LoRA: 2,166 tensors, 222 MB."""
BLOCKS = 100
SUBSET = {"": "disk", **{f"blocks.{index}": "cpu" for index in range(0, BLOCKS, 10)}}
SUBSET |= {f"blocks.{index}": "cpu" for index in (*range(1, BLOCKS, 10), *range(2, BLOCKS, 10))}
"""Three of ten blocks."""

Load = Callable[[], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Workload:
    name: str
    paths: tuple[str, ...]
    device_map: Mapping[str, str] | None = None

    @property
    def size_bytes(self) -> int:
        return sum(os.path.getsize(path) for path in self.paths)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = {
            "benchmark": "loading strategies",
            "rounds": options.rounds,
            "machine": {
                "platform": platform.platform(),
                "cores": os.cpu_count(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            },
            "workloads": {
                workload.name: _measure(workload, options.rounds)
                for workload in _workloads(Path(folder), options.checkpoint_mb * 1_000_000)
            },
        }
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint-mb", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the files are made: a disk, not a tmpfs")
    parser.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    return parser.parse_args()


def _workloads(folder: Path, checkpoint_bytes: int) -> Iterator[Workload]:
    loras = tuple(_save(_lora(index), folder / f"lora-{index}.safetensors") for index in range(4))
    yield Workload("one LoRA", loras[:1])
    yield Workload("four LoRAs", loras)
    blocks = _checkpoint(checkpoint_bytes)
    whole = _save(blocks, folder / "checkpoint.safetensors")
    yield Workload("one checkpoint", (whole,))
    keys = list(blocks)
    share = -(-len(keys) // 5)
    parts = [{key: blocks[key] for key in keys[start : start + share]} for start in range(0, len(keys), share)]
    yield Workload("five shards", tuple(_save(part, folder / f"shard-{n}.safetensors") for n, part in enumerate(parts)))
    yield Workload("30% of the checkpoint", (whole,), SUBSET)


def _lora(index: int) -> dict[str, torch.Tensor]:
    tensors = {}
    for module in range(MODULES):
        name = f"lora{index}_unet_input_blocks_{module}_1_transformer_blocks_0_attn1_to_k"
        tensors[f"{name}.lora_down.weight"] = torch.full((RANK, WIDTH), 0.5, dtype=torch.float16)
        tensors[f"{name}.lora_up.weight"] = torch.full((WIDTH, RANK), 0.25, dtype=torch.float16)
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK), dtype=torch.float16)
    return tensors


def _checkpoint(size_bytes: int) -> dict[str, torch.Tensor]:
    columns = 1280
    rows = size_bytes // (2 * BLOCKS * columns * 4)
    return {
        f"blocks.{block}.{part}.weight": torch.full((rows, columns), float(block), dtype=torch.float16)
        for block in range(BLOCKS)
        for part in ("q", "k", "v", "out")
    }


def _save(tensors: dict[str, torch.Tensor], path: Path) -> str:
    save_file(tensors, path)
    return str(path)


def _measure(workload: Workload, rounds: int) -> dict[str, object]:
    loaders = _loaders(workload)
    seconds: dict[str, dict[str, list[float]]] = {name: {"warm": [], "cold": []} for name in loaders}
    for _ in range(rounds):
        for state in ("warm", "cold"):
            for name, load in loaders.items():
                _prepare(workload, state)
                started = time.perf_counter()
                _touch(load())
                seconds[name][state].append(time.perf_counter() - started)
    medians = {
        name: {state: statistics.median(values) for state, values in found.items()} for name, found in seconds.items()
    }
    return {"files": len(workload.paths), "file_bytes": workload.size_bytes, "median_s": medians, **_memory(workload)}


def _loaders(workload: Workload) -> dict[str, Load]:
    rules = None if workload.device_map is None else DeviceMap.of(workload.device_map)
    request = LoadRequest(workload.paths, device_map=rules)
    registry = StrategyRegistry.default()
    capable = [name for name in registry.strategies if name not in registry.refusals(request)]
    found: dict[str, Load] = {name: lambda name=name: load_request(request, name) for name in (*capable, "auto")}
    found["safetensors load_file"] = lambda: _load_file(request)
    found["safetensors load_file, cloned"] = lambda: {key: value.clone() for key, value in _load_file(request).items()}
    if workload.device_map is None:
        found["floor: memory copy"] = lambda: _copy(workload)
        if all(can_read_directly(read_header(path)) for path in workload.paths):
            found["floor: direct reads"] = lambda: _read_directly(workload)
    return found


def _load_file(request: LoadRequest) -> dict[str, torch.Tensor]:
    tensors = {key: value for path in request.paths for key, value in load_file(path).items()}
    return {key: tensors[key] for key in request.devices(tensors)}


def _copy(workload: Workload) -> dict[str, torch.Tensor]:
    source = torch.zeros(max(os.path.getsize(path) for path in workload.paths), dtype=torch.uint8)
    target = torch.empty_like(source)
    for _ in workload.paths:
        target.copy_(source)
    return {}


def _read_directly(workload: Workload) -> dict[str, torch.Tensor]:
    for path in workload.paths:
        read_tensors_directly(read_header(path), Pace(), threads=4)
    return {}


def _prepare(workload: Workload, state: str) -> None:
    for path in workload.paths:
        if state == "warm":
            warm(path, cancelled=lambda: False)
            continue
        drop_file(path)
        left_bytes = resident_bytes(path)
        if left_bytes:
            raise SystemExit(f"{path}: {left_bytes} bytes stay in the page cache; nothing cold can be measured here")


def _touch(tensors: Mapping[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.view(-1)[:: max(1, 4096 // tensor.itemsize)].sum()


def _memory(workload: Workload) -> dict[str, object]:
    """Private bytes that each strategy holds at its peak, and the choice of `auto` with its reasons."""
    rules = None if workload.device_map is None else DeviceMap.of(workload.device_map)
    request = LoadRequest(workload.paths, device_map=rules)
    registry = StrategyRegistry.default()
    refusals = registry.refusals(request)
    peaks = {
        name: load_request(request, name).metrics.peak_bytes for name in registry.strategies if name not in refusals
    }
    choice = load_request(request, "auto")
    return {
        "peak_bytes": peaks,
        "loaded_bytes": choice.metrics.loaded_bytes,
        "auto": {"strategy": choice.metrics.strategy, "reasons": list(choice.reasons)},
        "refusals": refusals,
    }


if __name__ == "__main__":
    main()
