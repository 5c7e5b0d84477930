"""Warm views of a 2,100-tensor LoRA: `map_tensors` against `safetensors.torch.load_file`, interleaved in one process.

    python benchmarks/views.py [--rounds 15] [--file LORA.safetensors] [--json OUT.json]

Both return a dict of tensors on the mapped file; "touched" reads one element of each page too, so that whoever defers
the work still pays for it. The bar is a ratio of at most 0.4."""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from written import write_report

from warmstack.loaders import map_tensors, read_tensors, warm_file

BAR = 0.4
MODULES = 722
RANK = 32
WIDTH = 2400
"""722 modules of rank 32, three tensors each: the size and the tensor count of an SDXL LoRA (224 MB, 2,166 tensors)."""

Load = Callable[[Path], dict[str, torch.Tensor]]
LOADERS: dict[str, Load] = {
    "warmstack map_tensors": lambda path: map_tensors(path).tensors,
    "warmstack read_tensors": lambda path: read_tensors(path).tensors,
    "safetensors load_file": lambda path: load_file(path),
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or _write_lora(Path(folder) / "lora.safetensors")
        warm_file(path, cancelled=lambda: False)
        report = _report(path, _measure(path, options.rounds))
    write_report(report, options.json)
    sys.exit(0 if report["passed"] else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--file", type=Path, help="a LoRA of your own instead of a generated one")
    parser.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    return parser.parse_args()


def _write_lora(path: Path) -> Path:
    tensors = {}
    for index in range(MODULES):
        name = f"lora_unet_input_blocks_{index}_1_transformer_blocks_0_attn1_to_k"
        tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, WIDTH).half()
        tensors[f"{name}.lora_up.weight"] = torch.randn(WIDTH, RANK).half()
        tensors[f"{name}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def _measure(path: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by loader: until the call returned, and until every page was touched as well."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"returned": [], "touched": []} for name in LOADERS}
    for _ in range(rounds):
        for name, load in LOADERS.items():
            started = time.perf_counter()
            tensors = load(path)
            seconds[name]["returned"].append(time.perf_counter() - started)
            _touch(tensors)
            seconds[name]["touched"].append(time.perf_counter() - started)
            del tensors
    return seconds


def _touch(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.view(-1)[:: max(1, 4096 // tensor.itemsize)].sum()


def _report(path: Path, seconds: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    medians = {
        name: {moment: statistics.median(values) for moment, values in moments.items()}
        for name, moments in seconds.items()
    }
    ratio = medians["warmstack map_tensors"]["returned"] / medians["safetensors load_file"]["returned"]
    return {
        "benchmark": "warm views",
        "file_bytes": path.stat().st_size,
        "tensors": len(map_tensors(path).tensors),
        "rounds": len(seconds["safetensors load_file"]["returned"]),
        "median_s": medians,
        "ratio": ratio,
        "bar": BAR,
        "passed": ratio <= BAR,
        "machine": {"platform": platform.platform(), "torch": torch.__version__, "threads": torch.get_num_threads()},
    }


if __name__ == "__main__":
    main()
