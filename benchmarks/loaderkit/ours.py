"""Our strategies, each as the function that a user would call. `workload` is a Workload as JSON."""

from __future__ import annotations

from typing import Any

import torch

from warmstack.loaders import LazyLoadingStrategy, LoadRequest, ModelLoader, SpareMemory, load_loras_batch, read_tensors
from warmstack.loaders.strategies.strategy import LoadResult

Tensors = list[torch.Tensor]


def auto(workload: dict[str, Any]) -> Tensors:
    return _load("auto", workload)


def auto_fresh_memory(workload: dict[str, Any]) -> Tensors:
    """As the first load of a process."""
    return _load("auto", workload, spare=SpareMemory(0))


def eager(workload: dict[str, Any]) -> Tensors:
    return _load("eager", workload)


def lazy(workload: dict[str, Any]) -> Tensors:
    return _load("lazy", workload)


def lazy_populated(workload: dict[str, Any]) -> Tensors:
    if workload["name"] == "batch":
        results = [LazyLoadingStrategy(populate=True).load(LoadRequest((path,))) for path in workload["paths"]]
        return [tensor for result in results for tensor in result.values()]
    return list(_loader("lazy", workload, populate=True).values())


def fast_single_file(workload: dict[str, Any]) -> Tensors:
    return _load("fast_single_file", workload)


def parallel(workload: dict[str, Any]) -> Tensors:
    return _load("parallel", workload)


def parallel_async_lazy(workload: dict[str, Any]) -> Tensors:
    return _load("parallel_async_lazy", workload)


def streaming(workload: dict[str, Any]) -> Tensors:
    return _load("streaming", workload)


def read_tensors_small_pages(workload: dict[str, Any]) -> Tensors:
    """What the adapter cache calls."""
    return [tensor for path in workload["paths"] for tensor in read_tensors(path).tensors.values()]


def _load(strategy: str, workload: dict[str, Any], spare: SpareMemory | None = None) -> Tensors:
    if workload["name"] == "batch":
        batch = load_loras_batch(workload["paths"], strategy=strategy, spare=spare)
        return [tensor for tensors in batch.values() for tensor in tensors.values()]
    return list(_loader(strategy, workload, spare=spare).values())


def _loader(strategy: str, workload: dict[str, Any], **settings: Any) -> LoadResult:
    prefixes, dtype = workload["prefixes"], workload["dtype"]
    loader = ModelLoader(
        strategy,
        device_map={"": "disk", **dict.fromkeys(prefixes, "cpu")} if prefixes else None,
        dtype=getattr(torch, dtype) if dtype else None,
        **settings,
    )
    return loader.load_shards(workload["paths"])
