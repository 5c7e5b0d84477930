"""Patch math: ComfyUI's own `comfy.lora.calculate_weight` against one fused `addmm_`, in one process.

    COMFYUI_PYTHON benchmarks/patch_math.py --comfyui /path/to/ComfyUI --model sdxl --loras 8

Runs in ComfyUI's Python. The weights of one block of each kind are patched in the order of the model: stock, fused and
bare GEMM take turns, and the medians are weighted by how many such blocks the model has. Every way gets the same fp32
weights, each copied right before it is patched, as the host does (not timed), and the same half-precision factors.
Casting, scaling and joining the factors is timed, except for the bare GEMM, which finds them ready. Prints one JSON
document.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from checkout import name_checkout
from written import write_report

Shape = tuple[int, int]

RANK = 32
ALPHA = 16.0


@dataclass(frozen=True)
class Block:
    """Weights that are patched one after the other, and how often the model repeats them."""

    name: str
    repeats: int
    shapes: tuple[Shape, ...]


def sdxl_blocks() -> list[Block]:
    """The 722 modules of the UNet's transformers, which is what a kohya or diffusers SDXL LoRA trains."""
    blocks = []
    for width, transformers, repeats in ((640, 5, 10), (1280, 6, 60)):
        square, cross = (width, width), (width, 2048)
        attention = (square, square, square, square, square, cross, cross, square)
        blocks.append(Block(f"projections of {width}", transformers, (square, square)))
        blocks.append(Block(f"block of {width}", repeats, (*attention, (8 * width, width), (width, 4 * width))))
    return blocks


def flux_blocks() -> list[Block]:
    """The 304 linear layers of the 19 double and 38 single blocks of Flux dev."""
    w = 3072
    stream = ((6 * w, w), (3 * w, w), (w, w), (4 * w, w), (w, 4 * w))
    return [
        Block("double block", 19, (*stream, *stream)),
        Block("single block", 38, ((3 * w, w), (7 * w, w), (w, 5 * w))),
    ]


BLOCKS = {"sdxl": sdxl_blocks, "flux": flux_blocks}


@dataclass(frozen=True)
class Factors:
    """One LoRA's factors for one weight. up: (out, rank), down: (rank, in)."""

    up: torch.Tensor
    down: torch.Tensor
    strength: float


@dataclass(frozen=True)
class Timing:
    """Seconds for one pass over `block`."""

    block: Block
    stock_s: float
    fused_s: float
    gemm_s: float
    difference: float
    """Between the two results for one weight, relative to the update (Frobenius)."""


def import_comfy(path: Path) -> tuple[ModuleType, ModuleType]:
    sys.path.insert(0, str(path))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.lora
    import comfy.weight_adapter

    return comfy.lora, comfy.weight_adapter


def import_fuse() -> ModuleType:
    name_checkout()
    return importlib.import_module("warmstack.lora.fusing.fuse")


def random_factors(shape: Shape, loras: int, dtype: torch.dtype) -> list[Factors]:
    out_features, in_features = shape
    return [
        Factors(
            torch.randn(out_features, RANK).mul_(0.02).to(dtype),
            torch.randn(RANK, in_features).mul_(0.02).to(dtype),
            strength=0.9 - 0.1 * index,
        )
        for index in range(loras)
    ]


def stock_patches(adapter_class: Any, stack: list[Factors]) -> list[tuple[Any, ...]]:
    return [
        (lora.strength, adapter_class(set(), (lora.up, lora.down, ALPHA, None, None, None)), 1.0, None, None)
        for lora in stack
    ]


def ready_factors(stack: list[Factors]) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, ranks) with the scales in it, and (ranks, in), both fp32."""
    ups = [lora.up.float() * (lora.strength * ALPHA / RANK) for lora in stack]
    return torch.cat(ups, 1), torch.cat([lora.down.float() for lora in stack])


class Bench:
    """One block's weights and factors, and the three ways to patch a weight."""

    def __init__(self, block: Block, loras: int, dtype: torch.dtype, comfy: tuple[Any, Any], fuse: Any) -> None:
        self.block = block
        self._calculate_weight = comfy[0].calculate_weight
        self._add_fused = fuse.add_fused_
        self._base = {shape: torch.randn(shape) for shape in set(block.shapes)}
        stacks = [random_factors(shape, loras, dtype) for shape in block.shapes]
        self._patches = [stock_patches(comfy[1].LoRAAdapter, stack) for stack in stacks]
        self._plain = [[fuse.PlainLora(f.up, f.down, f.strength * ALPHA / RANK) for f in stack] for stack in stacks]
        self._ready = [ready_factors(stack) for stack in stacks]

    def stock(self, index: int, weight: torch.Tensor) -> torch.Tensor:
        return self._calculate_weight(self._patches[index], weight, "key")

    def fused(self, index: int, weight: torch.Tensor) -> torch.Tensor:
        return self._add_fused(weight, self._plain[index])

    def gemm(self, index: int, weight: torch.Tensor) -> torch.Tensor:
        return weight.addmm_(*self._ready[index])

    def seconds(self, way: Callable[[int, torch.Tensor], torch.Tensor]) -> float:
        total_s = 0.0
        for index, shape in enumerate(self.block.shapes):
            weight = self._base[shape].clone()
            started_s = time.perf_counter()
            way(index, weight)
            total_s += time.perf_counter() - started_s
        return total_s

    def timing(self, rounds: int) -> Timing:
        ways = (self.stock, self.fused, self.gemm)
        samples = [[self.seconds(way) for way in ways] for _ in range(rounds + 1)][1:]
        stock_s, fused_s, gemm_s = map(statistics.median, zip(*samples, strict=True))
        return Timing(self.block, stock_s, fused_s, gemm_s, self._difference())

    def _difference(self) -> float:
        stock, fused = (way(0, torch.zeros(self.block.shapes[0])) for way in (self.stock, self.fused))
        return float((fused - stock).norm() / stock.norm())


def report(arguments: argparse.Namespace, timings: list[Timing]) -> dict[str, Any]:
    stock_s, fused_s, gemm_s = (
        sum(getattr(timing, name) * timing.block.repeats for timing in timings)
        for name in ("stock_s", "fused_s", "gemm_s")
    )
    return {
        "benchmark": "patch_math",
        "model": arguments.model,
        "loras": arguments.loras,
        "rank": RANK,
        "factor_dtype": arguments.dtype,
        "modules": sum(timing.block.repeats * len(timing.block.shapes) for timing in timings),
        "weighting": "one block of each kind timed, multiplied by its repeats",
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "stock_s": round(stock_s, 4),
        "fused_s": round(fused_s, 4),
        "bare_gemm_s": round(gemm_s, 4),
        "times_faster": round(stock_s / fused_s, 2),
        "times_bare_gemm": round(fused_s / gemm_s, 3),
        "bare_gemm_times_faster": round(stock_s / gemm_s, 2),
        "largest_difference": max(timing.difference for timing in timings),
        "blocks": [
            {
                "name": timing.block.name,
                "repeats": timing.block.repeats,
                "stock_ms": round(timing.stock_s * 1e3, 2),
                "fused_ms": round(timing.fused_s * 1e3, 2),
                "bare_gemm_ms": round(timing.gemm_s * 1e3, 2),
            }
            for timing in timings
        ],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    parser.add_argument("--model", choices=BLOCKS, default="sdxl")
    parser.add_argument("--loras", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="of the LoRA factors")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to standard output")
    arguments = parser.parse_args()
    if arguments.comfyui is None:
        parser.error("--comfyui or COMFYUI_PATH must name a ComfyUI folder")
    return arguments


@torch.no_grad()
def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    comfy_modules, fuse = import_comfy(Path(arguments.comfyui)), import_fuse()
    dtype = getattr(torch, arguments.dtype)
    benches = (Bench(block, arguments.loras, dtype, comfy_modules, fuse) for block in BLOCKS[arguments.model]())
    timings = [bench.timing(arguments.rounds) for bench in benches]
    write_report(report(arguments, timings), arguments.out)


if __name__ == "__main__":
    main()
