"""Every operator on the device: queued on the current stream, whose thread computes it with torch's CPU kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import simulated_gpu_backend as backend
import streams
import torch
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_", "addbmm", "mv", "addmv", "dot"}
UNDIVIDED = ("convolution", "scaled_dot_product_attention")
"""Operators that torch would divide into those of another device's kernels, which no CPU has."""


def run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    values, layout = tree_flatten((args, kwargs))
    device = _one_device(operator, values)
    _one_dtype(operator, values)
    stream = streams.current(device.index)
    # Whoever hands over an empty tensor for the result leaves its size to the operator.
    unsized = {id(out): out.new_empty(0, device="cpu") for out in kwargs.values() if _is_empty(out)}
    host_values = [unsized[id(value)] if id(value) in unsized else _on_host(value) for value in values]
    host_args, host_kwargs = tree_unflatten(host_values, layout)
    work = partial(_overload(operator, args), *host_args, **host_kwargs)
    if _only_writes(operator) and not unsized:
        stream.put(work)
        return _written(operator, args, kwargs)
    # As long as the thread that asks waits for it, the operator itself says what comes out. The tests watch nothing but
    # operators that write.
    result = stream.run(work)
    if not _only_writes(operator):
        return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), result)
    for out in kwargs.values():
        if id(out) in unsized:
            out.resize_(unsized[id(out)].shape).copy_(unsized[id(out)])
    return _written(operator, args, kwargs)


def copy_(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """To the device, from it or on it. The thread waits as it would on a real one: unless it need not and the host's
    side is pinned."""
    on_device = [tensor.device for tensor in (target, source) if tensor.is_cuda]
    if len({device.index for device in on_device}) > 1:
        raise NotImplementedError("the simulated GPU copies nothing from one device to another")
    stream = streams.current(on_device[0].index)
    host = next((tensor for tensor in (target, source) if tensor.is_cpu), None)
    number = stream.put(partial(_copy, backend.for_streams(target), backend.for_streams(source), host))
    if host is not None and not (non_blocking and host.is_pinned()):
        stream.wait(number)
    return target


def _copy(target: torch.Tensor, source: torch.Tensor, kept: torch.Tensor | None) -> None:
    """`kept`: pinned memory that was dropped goes to nobody else while a copy is under way."""
    target.copy_(source)


def _one_device(operator: Any, values: Sequence[Any]) -> torch.device:
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    # A number in a tensor of its own is handed to a kernel by value.
    devices = {tensor.device for tensor in tensors if tensor.is_cuda or tensor.dim()}
    if len(devices) != 1:
        raise RuntimeError(f"Expected all tensors to be on the same device: {operator} of {devices} (simulated)")
    return devices.pop()


def _one_dtype(operator: Any, values: Sequence[Any]) -> None:
    """A product of two dtypes is refused before anything is queued."""
    dtypes = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    if len(dtypes) > 1 and operator._schema.name.removeprefix("aten::") in PRODUCTS:
        raise RuntimeError(f"expected all tensors to have the same dtype: {operator} of {dtypes} (simulated)")


def _on_host(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if not isinstance(value, torch.Tensor):
        return value
    return backend.for_streams(value) if value.is_cuda else value.clone()


def _is_empty(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not value.numel()


def _overload(operator: Any, args: Sequence[Any]) -> Any:
    """A number where `operator` takes a tensor is a number for another overload of it."""
    pairs = zip(operator._schema.arguments, args, strict=False)
    numbers = any(str(taken.type) == "Tensor" and isinstance(given, int | float | complex) for taken, given in pairs)
    return operator.overloadpacket if numbers else operator


def _only_writes(operator: Any) -> bool:
    schema = operator._schema
    return schema.is_mutable and all(returned.alias_info is not None for returned in schema.returns)


def _written(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator that only writes returns: arguments."""
    schema = operator._schema
    named = {taken.name: given for taken, given in zip(schema.arguments, args, strict=False)} | kwargs
    writes = [taken.name for taken in schema.arguments if taken.alias_info is not None and taken.alias_info.is_write]
    found = tuple(named[name] for name in writes[: len(schema.returns)])
    return found if len(found) > 1 else next(iter(found), None)


def install() -> list[torch.library.Library]:
    """Lasts as long as what it returns."""
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(run, "CUDA")
    aten.impl("copy_", copy_, "CUDA")
    for name in UNDIVIDED:
        aten.impl(name, partial(run, getattr(torch.ops.aten, name).default), "CUDA")
    return [every, aten]
