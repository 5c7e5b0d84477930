"""Load LoRA Stack: eight warm adapters through one node against eight chained LoraLoader nodes of the same host.

    COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON benchmarks/load_stack.py

Runs in ComfyUI's Python, on an SDXL UNet of real structure without weights (nothing here computes any), with LoRAs of
722 modules. Both sides run what a changed prompt runs: the nodes' own `execute`, down to a patcher that is ready to be
loaded. All files are in the page cache. Three rounds are interleaved, and medians are compared:

- `stock`: fresh LoraLoaderModelOnly nodes, which read their files; `stock_kept`: nodes that still hold their last file,
  as when only a strength has changed.
- `fused`, `exact`: Load LoRA Stack with the adapters resident and matched to this model before.
- `fused_first`: the same, matched for the first time.

Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from checkout import name_checkout
from written import write_report

ROOT = Path(__file__).resolve().parents[1]
Shape = tuple[int, int]

SDXL = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048, "adm_in_channels": 2816,
    "num_classes": "sequential", "use_linear_in_transformer": True, "num_head_channels": 64, "num_heads": -1,
    "use_spatial_transformer": True, "legacy": False, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip


def import_host(comfyui: Path, base: Path) -> None:
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu", "--base-directory", str(base), "--disable-api-nodes"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths

    folder_paths.folder_names_and_paths["loras"] = ([str(base / "models/loras")], {".safetensors"})
    name_checkout()


def sdxl_without_weights() -> Any:
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SDXL(dict(SDXL))
    model = config.get_model({}, "", device=torch.device("meta"))
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"), size=1)


def attention_modules(model: Any) -> Iterator[tuple[str, Shape]]:
    """What an SDXL LoRA trains: every linear layer of the transformers."""
    for name, module in model.model.diffusion_model.named_modules():
        if isinstance(module, torch.nn.Linear) and (".transformer_blocks." in name or ".proj_" in name):
            yield name, (module.out_features, module.in_features)


def write_library(base: Path, modules: list[tuple[str, Shape]], count: int, rank: int) -> list[str]:
    from safetensors.torch import save_file

    folder = base / "models/loras"
    folder.mkdir(parents=True)
    names = [f"bench{index}.safetensors" for index in range(count)]
    for name in names:
        tensors: dict[str, torch.Tensor] = {}
        for module, (out_features, in_features) in modules:
            key = f"lora_unet_{module.replace('.', '_')}"
            tensors[f"{key}.lora_up.weight"] = torch.randn(out_features, rank).half()
            tensors[f"{key}.lora_down.weight"] = torch.randn(rank, in_features).half()
            tensors[f"{key}.alpha"] = torch.tensor(float(rank)).half()
        save_file(tensors, folder / name)
    return names


class Contest:
    """One model, one library, and the ways to put the one on the other."""

    def __init__(self, model: Any, names: list[str]) -> None:
        import nodes
        from warmstack.nodes.load_lora_stack_node import LoadLoraStack
        from warmstack.nodes.runtime import get_runtime

        self._model = model
        self._names = names
        self._nodes: ModuleType = nodes
        self._stack_node = LoadLoraStack
        self._runtime = get_runtime()
        self._kept = [nodes.LoraLoaderModelOnly() for _ in names]
        self._text = json.dumps([{"name": name, "strength_model": 0.5} for name in names])
        self._runtime.catalog.refresh()
        self.stock_kept()
        self._pins = [self._runtime.cache.acquire(self._runtime.catalog.find(name)) for name in names]

    def stock(self) -> Any:
        return self._chain([self._nodes.LoraLoaderModelOnly() for _ in self._names])

    def stock_kept(self) -> Any:
        return self._chain(self._kept)

    def fused(self) -> Any:
        return self._stack_node.execute(self._model, self._text, "fused").args

    def exact(self) -> Any:
        return self._stack_node.execute(self._model, self._text, "exact").args

    def forget_matches(self) -> None:
        for lease in self._pins:
            lease.adapter.prepared.clear()

    def _chain(self, loaders: list[Any]) -> Any:
        model = self._model
        for loader, name in zip(loaders, self._names, strict=True):
            model = loader.load_lora_model_only(model, name, 0.5)[0]
        return model


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(contest: Contest, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        contest.forget_matches()
        for name, work in (
            ("fused_first", contest.fused), ("fused", contest.fused), ("exact", contest.exact),
            ("stock", contest.stock), ("stock_kept", contest.stock_kept),
        ):  # fmt: skip
            took_s, result = timed(work)
            seconds.setdefault(name, []).append(took_s)
            del result
    return seconds


def check(contest: Contest, modules: int, loras: int) -> None:
    """What was timed did the work: the exact stack carries the patches of the chained loaders."""
    stock, (exact, _, _, report) = contest.stock(), contest.exact()
    assert exact.patches.keys() == stock.patches.keys() and len(stock.patches) == modules, len(stock.patches)
    assert all(len(patches) == loras for patches in exact.patches.values()), report
    assert all(len(patches) == 1 for patches in contest.fused()[0].patches.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"))
    parser.add_argument("--loras", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.comfyui is None:
        parser.error("where is ComfyUI? Set COMFYUI_PATH or give --comfyui")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as folder:
        import_host(Path(arguments.comfyui), Path(folder))
        model = sdxl_without_weights()
        modules = list(attention_modules(model))
        contest = Contest(model, write_library(Path(folder), modules, arguments.loras, arguments.rank))
        check(contest, len(modules), arguments.loras)
        seconds = measure(contest, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "benchmark": "load_stack",
        "loras": arguments.loras,
        "modules": len(modules),
        "weights_in_model": len(model.model.state_dict()),
        "rank": arguments.rank,
        "rounds": arguments.rounds,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "median_ms": {name: round(value * 1000, 2) for name, value in medians.items()},
        "share_of_stock": {name: round(value / medians["stock"], 4) for name, value in medians.items()},
        "share_of_stock_kept": {name: round(value / medians["stock_kept"], 4) for name, value in medians.items()},
    }
    write_report(result, arguments.out)


if __name__ == "__main__":
    main()
