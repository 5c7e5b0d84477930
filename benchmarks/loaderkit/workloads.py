"""Workloads: the files that are loaded, made of weights that any loader takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

MODULES, RANK, WIDTH = 722, 32, 2400
"""The tensor count and the size of an SDXL LoRA: 2,166 tensors, 222 MB."""
BLOCKS, PARTS, COLUMNS = 100, ("q", "k", "v", "out"), 1280
SHARDS = 5
_INDEX = "model.safetensors.index.json"
SELECTED = tuple(f"blocks.{index}" for index in range(BLOCKS) if index % 10 < 3)
"""Three of ten blocks."""


@dataclass(frozen=True)
class Workload:
    """What one load loads."""

    name: str
    paths: tuple[str, ...]
    pickles: tuple[str, ...] = ()
    """The same tensors as `torch.save` writes them; where there are none, `torch.load` has no part in it."""
    prefixes: tuple[str, ...] = ()
    """Only tensors below these are wanted; empty: all."""
    dtype: str = ""
    """What they are cast to; empty: nothing."""
    wanted_bytes: int = field(default=0)
    strangers: bool = True
    """Compared with other loaders too, and not only among our own strategies."""

    @property
    def files(self) -> tuple[str, ...]:
        return self.paths + self.pickles


def make(folder: Path, checkpoint_bytes: int, names: frozenset[str]) -> dict[str, Workload]:
    """Those of the workloads that are asked for. Files that are there already are kept as they are."""
    made = (
        _lora(folder),
        _batch(folder),
        _small(folder),
        *_checkpoints(folder, checkpoint_bytes, names),
    )
    return {workload.name: workload for workload in made if workload.name in names}


NAMES = ("lora", "batch", "small", "checkpoint", "shards", "subset", "shards_subset", "cast")


def _lora(folder: Path) -> Workload:
    path, pickle = folder / "lora-0.safetensors", folder / "lora-0.pt"
    _save(path, lambda: lora_tensors(0))
    if not pickle.exists():
        torch.save(lora_tensors(0), pickle)
    return _sized(Workload("lora", (str(path),), (str(pickle),)))


def _batch(folder: Path) -> Workload:
    paths = [folder / f"lora-{index}.safetensors" for index in range(8)]
    for index, path in enumerate(paths):
        _save(path, lambda index=index: lora_tensors(index))
    return _sized(Workload("batch", tuple(map(str, paths))))


def _small(folder: Path) -> Workload:
    path = folder / "small.safetensors"
    _save(path, lambda: lora_tensors(0, modules=264, rank=4, width=1280))
    return _sized(Workload("small", (str(path),), strangers=False))


def _checkpoints(folder: Path, size_bytes: int, names: frozenset[str]) -> list[Workload]:
    if not names & {"checkpoint", "shards", "subset", "shards_subset", "cast"}:
        return []
    whole, pickle = folder / "checkpoint.safetensors", folder / "checkpoint.pt"
    sharded = bool(names & {"shards", "shards_subset", "cast"})
    shards_done = not sharded or (folder / _INDEX).exists()
    done = whole.exists() and (pickle.exists() or "checkpoint" not in names) and shards_done
    tensors = checkpoint_tensors(size_bytes, "meta" if done else "cpu")
    _save(whole, lambda: tensors)
    if "checkpoint" in names and not pickle.exists():
        torch.save(tensors, pickle)
    shards = _shards(folder, tensors) if sharded else ()
    selected = [tensor for key, tensor in tensors.items() if key.rpartition(".")[0].rpartition(".")[0] in SELECTED]
    selected_bytes = sum(tensor.nbytes for tensor in selected)
    of_shards = (
        _sized(Workload("shards", shards)),
        Workload("shards_subset", shards, (), SELECTED, "", selected_bytes),
        _sized(Workload("cast", shards, dtype="bfloat16", strangers=False)),
    )
    return [
        *([_sized(Workload("checkpoint", (str(whole),), (str(pickle),)))] if "checkpoint" in names else []),
        *(of_shards if sharded else ()),
        Workload("subset", (str(whole),), (), SELECTED, "", selected_bytes),
    ]


def _shards(folder: Path, tensors: dict[str, torch.Tensor]) -> tuple[str, ...]:
    keys = list(tensors)
    share = -(-len(keys) // SHARDS)
    names = [f"model-{index + 1:05}-of-{SHARDS:05}.safetensors" for index in range(SHARDS)]
    parts = [keys[start : start + share] for start in range(0, len(keys), share)]
    for name, part in zip(names, parts, strict=True):
        _save(folder / name, lambda part=part: {key: tensors[key] for key in part})
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (folder / _INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tuple(str(folder / name) for name in names)


def lora_tensors(
    index: int, *, modules: int = MODULES, rank: int = RANK, width: int = WIDTH
) -> dict[str, torch.Tensor]:
    tensors = {}
    for module in range(modules):
        name = f"lora_unet_input_blocks_{module}_1_transformer_blocks_0_attn1_to_k"
        tensors[f"{name}.lora_down.weight"] = torch.full((rank, width), 0.5 + index, dtype=torch.float16)
        tensors[f"{name}.lora_up.weight"] = torch.full((width, rank), 0.25, dtype=torch.float16)
        tensors[f"{name}.alpha"] = torch.tensor(float(rank), dtype=torch.float16)
    return tensors


def checkpoint_tensors(size_bytes: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    rows = size_bytes // (2 * BLOCKS * COLUMNS * len(PARTS))
    return {
        f"blocks.{block}.{part}.weight": torch.full((rows, COLUMNS), float(block), dtype=torch.float16, device=device)
        for block in range(BLOCKS)
        for part in PARTS
    }


def _sized(workload: Workload) -> Workload:
    size_bytes = sum(os.path.getsize(path) for path in workload.paths)
    return Workload(
        workload.name, workload.paths, workload.pickles, workload.prefixes, workload.dtype, size_bytes,
        workload.strangers,
    )  # fmt: skip


def _save(path: Path, tensors: Callable[[], dict[str, torch.Tensor]]) -> None:
    if not path.exists():
        save_file(tensors(), path, metadata={"format": "pt"})
        # A direct read of pages that are still to be written waits for them.
        with path.open("rb") as file:
            os.fsync(file.fileno())
