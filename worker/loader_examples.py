"""Five examples of `warmstack.loaders`, each a function that is meant to be read: it loads and shows what that took."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table
from safetensors.torch import save_file

from ..loaders import (
    LoadCancelledError,
    LoadProgress,
    LoadResult,
    ModelLoader,
    NoCapableLoaderError,
    Pace,
    SafetensorsLoadError,
    StrategyRegistry,
    fill_module,
    read_header,
    read_index,
    stream_tensors,
)
from .tables import table_of

_MIB = 1 << 20
_BLOCKS = 8
_SHARDS = 4
_COLUMNS = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """One model of random float32 weights, in one file and in four shards."""

    single: Path
    index: Path
    rows: int
    """Of the one matrix, (rows, 512), that each of the eight blocks has."""

    def empty_model(self) -> torch.nn.Module:
        """The model on `meta`: shapes without memory."""
        with torch.device("meta"):
            blocks = [torch.nn.Linear(_COLUMNS, self.rows, bias=False) for _ in range(_BLOCKS)]
            return torch.nn.ModuleDict({"blocks": torch.nn.ModuleList(blocks)})


def make_sample(folder: Path, size_mib: int) -> Sample:
    """Write a model of about `size_mib` into `folder`."""
    rows = max(1, size_mib * _MIB // (_BLOCKS * _COLUMNS * 4))
    generator = torch.Generator().manual_seed(0)
    tensors = {f"blocks.{i}.weight": torch.randn(rows, _COLUMNS, generator=generator) for i in range(_BLOCKS)}
    save_file(tensors, folder / "model.safetensors")
    shard_of = {key: f"model-{i % _SHARDS + 1:05}-of-{_SHARDS:05}.safetensors" for i, key in enumerate(tensors)}
    for name in set(shard_of.values()):
        save_file({key: tensors[key] for key in tensors if shard_of[key] == name}, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shard_of}), encoding="utf-8")
    return Sample(folder / "model.safetensors", index, rows)


def compare(sample: Sample) -> Table:
    """Every strategy on one file and on shards, the page cache warm: until it returns, and until every number has been
    read once, which is when mapped tensors pay."""
    table = table_of("files", "strategy", "load ms", "load and use ms", "peak MiB", "refused because", title="compare")
    for words, path in (("one", sample.single), ("shards", sample.index)):
        for name in StrategyRegistry.default().strategies:
            try:
                rounds = [_used(ModelLoader(name), path) for _ in range(3)]
            except NoCapableLoaderError as error:
                table.add_row(words, name, "", "", "", escape(error.refusals[name]))
                continue
            load_s, use_s, peak_bytes = (statistics.median(values) for values in zip(*rounds, strict=True))
            table.add_row(words, name, f"{load_s * 1000:.1f}", f"{use_s * 1000:.1f}", _mib(peak_bytes), "")
    return table


def auto(sample: Sample) -> Table:
    """What `auto` takes for different wishes about the same model, and why."""
    wishes: Mapping[str, tuple[Path, ModelLoader]] = {
        "one file": (sample.single, ModelLoader()),
        "shards": (sample.index, ModelLoader()),
        "a part of it": (sample.single, ModelLoader(device_map={"": "disk", "blocks.0": "cpu"})),
        "cast, with little memory": (sample.single, ModelLoader(dtype=torch.bfloat16, low_cpu_mem_usage=True)),
    }
    table = table_of("wish", "strategy", "because", "ms", title="auto")
    for wish, (path, loader) in wishes.items():
        result = loader.load_checkpoint(path)
        duration = f"{result.metrics.duration_s * 1000:.1f}"
        table.add_row(wish, result.metrics.strategy, escape("; ".join(result.reasons)), duration)
    return table


def advanced(sample: Sample) -> Table:
    """Device maps, casts, limits, progress, cancelling, awaiting."""
    table = table_of("feature", "outcome", title="advanced")
    part = ModelLoader(device_map={"": "disk", "blocks.0": "cpu"}).load_checkpoint(sample.single)
    table.add_row("device map", f"{', '.join(part)} of {_BLOCKS} tensors, {_mib(part.metrics.loaded_bytes)} MiB read")
    cast = ModelLoader(dtype=torch.bfloat16).load_checkpoint(sample.single)
    table.add_row("dtype", ", ".join(sorted({str(tensor.dtype) for tensor in cast.values()})))
    steps: list[LoadProgress] = []
    ModelLoader("streaming").load_checkpoint(sample.index, progress=steps.append)
    table.add_row("progress", f"{len(steps)} steps to {steps[-1].done_bytes / steps[-1].total_bytes:.0%}")
    table.add_row("max_memory", _refusal(lambda: ModelLoader(max_memory={"cpu": 1}).load_checkpoint(sample.single)))
    table.add_row("cancelled", _refusal(lambda: ModelLoader().load_checkpoint(sample.single, cancelled=lambda: True)))
    ticks = asyncio.run(_ticks_while_loading(sample))
    table.add_row("awaited", f"the event loop turned {ticks} times meanwhile")
    return table


def memory(sample: Sample) -> Table:
    """What a load holds at most, beyond what it hands out: casting a model to half its size."""
    table = table_of("way", "handed out MiB", "peak MiB", "beyond MiB", title="memory")
    ways = {
        "eager, as stored": ModelLoader("eager"),
        "lazy, as stored (mapped)": ModelLoader("lazy"),
        "eager, cast": ModelLoader("eager", dtype=torch.bfloat16),
        "streaming, cast": ModelLoader("streaming", dtype=torch.bfloat16, max_bytes=_MIB),
    }
    for way, loader in ways.items():
        result = loader.load_checkpoint(sample.single)
        handed_bytes = 0 if "mapped" in way else sum(tensor.nbytes for tensor in result.values())
        peak_bytes = result.metrics.peak_bytes
        table.add_row(way, _mib(handed_bytes), _mib(peak_bytes), _mib(peak_bytes - handed_bytes))
    return table


def streaming(sample: Sample) -> Table:
    """Tensors as they arrive, with at most 1 MiB or one tensor read ahead; then the same into a model built on meta."""
    headers = [read_header(path) for path in read_index(sample.index).files]
    wanted = [(header, list(header.tensors)) for header in headers]
    table = table_of("tensor", "from", "at ms", "read ahead MiB", title="streaming")
    started_s = time.perf_counter()
    with closing(stream_tensors(wanted, Pace(), max_bytes=_MIB)) as stream:
        for arrived in stream:
            at = f"{(time.perf_counter() - started_s) * 1000:.1f}"
            table.add_row(arrived.key, Path(arrived.header.path).name, at, _mib(arrived.waiting_bytes))
    model = sample.empty_model()
    filled = fill_module(model, [header.path for header in headers], max_bytes=_MIB)
    on_meta = sum(parameter.is_meta for parameter in model.parameters())
    table.caption = f"model filled: {len(filled.missing)} missing, {on_meta} left on meta"
    return table


EXAMPLES: Mapping[str, Callable[[Sample], Table]] = {
    "compare": compare,
    "auto": auto,
    "advanced": advanced,
    "memory": memory,
    "streaming": streaming,
}


def _used(loader: ModelLoader, path: Path) -> tuple[float, float, int]:
    """Seconds to load, seconds to load and to read every number, peak bytes."""
    started_s = time.perf_counter()
    result = loader.load_checkpoint(path)
    for tensor in result.values():
        tensor.sum()
    return result.metrics.duration_s, time.perf_counter() - started_s, result.metrics.peak_bytes


def _refusal(load: Callable[[], LoadResult]) -> str:
    try:
        load()
    except LoadCancelledError as error:
        return f"stopped: {escape(error.reason)}"
    except SafetensorsLoadError as error:
        return f"refused: {escape(error.reason)}"
    return "loaded"


async def _ticks_while_loading(sample: Sample) -> int:
    loading = asyncio.create_task(ModelLoader().load_shards_async((), sample.index))
    ticks = 0
    while not loading.done():
        await asyncio.sleep(0)
        ticks += 1
    await loading
    return ticks


def _mib(nbytes: float) -> str:
    return f"{nbytes / _MIB:.1f}"
