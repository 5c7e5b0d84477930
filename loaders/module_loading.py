"""load_module: a model from what builds it and the folder of its weights, never in memory twice."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from .cancelling import Cancelled
from .errors import SafetensorsLoadError, SafetensorsValidationError
from .files.checkpoint import are_pickles, checkpoint_format, find_checkpoint
from .files.header import SafetensorsHeader
from .files.pickled_shards import load_pickles
from .files.shards import check_shards, read_index
from .model_names import named_for_model
from .module_filling import fill_from, set_tensor
from .progress import Progress
from .reading.filling import Pace
from .reading.opened import OpenFiles
from .robust import Device, PathLike, request_for

M = TypeVar("M", bound=torch.nn.Module)


def load_module(
    build: Callable[[], M],
    path: PathLike,
    *,
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> M:
    """The model that `build` makes, in eval mode, with the weights of a safetensors file, of a pickle, of an index of
    shards, or of the folder that holds one: `load_module(lambda: UNet2DConditionModel.from_config(config), folder)`.
    What of a pickle is neither cast nor moved stays mapped.

    Nothing is initialised: parameters are on `meta` until the shards fill them; buffers that no file has are what
    `build` computed, on their device and in its dtype: `from_pretrained` builds under `torch.set_default_dtype(dtype)`,
    which other threads would feel. What `from_pretrained` keeps in float32 for such a model and `dtype` becomes that
    here too, and what the files have under an older name, or with or without the prefix of a base model, is found as it
    finds it. SafetensorsValidationError when the files lack a parameter. See `fill_module`."""
    name = find_checkpoint(os.fspath(path))
    kind = checkpoint_format(name)
    if kind == "gguf":
        raise SafetensorsLoadError(name, "is a GGUF; load it with ModelLoader and load_state_dict")
    index = read_index(name) if kind == "index" else None
    with parameters_on_meta():
        module = build()
    files = (name,) if index is None else index.files
    with OpenFiles() as opened:
        request = replace(request_for(files, device, device_map, dtype), pace=Pace(cancelled), opened=opened)
        pickles = load_pickles(files, index, request.pace, opened) if are_pickles(files) else None
        stated = check_shards(files, index, opened=opened) if pickles is None else pickles.headers()
        headers = named_for_model(module, stated)
        loaded = None if pickles is None else _named(pickles.tensors, headers)
        groups = _tied(module)
        kept = _kept_in_float32(module, dtype)
        filled = fill_from(module, headers, request, loaded=loaded, float32=kept, progress=progress)
        if pickles is not None and request.copies:
            for file in files:
                pickles.require_unchanged(file, opened)
    for group in groups:
        _tie(name, module, group, filled.missing)
    computed = dict(module.named_buffers(remove_duplicate=False))
    for key, place in request.devices(computed).items():
        set_tensor(module, key, computed[key].to(place))
    return module.eval()


def _named(
    loaded: dict[str, dict[str, torch.Tensor]], headers: Mapping[str, SafetensorsHeader]
) -> dict[str, dict[str, torch.Tensor]]:
    """What `loaded` held, under the names that `headers` have for it, in the same order."""
    return {path: dict(zip(header.tensors, loaded.pop(path).values(), strict=True)) for path, header in headers.items()}


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules that this thread builds meanwhile have parameters without memory, and buffers as ever."""
    _HOOK.install()
    before, _HOOK.wanted = _HOOK.wanted, True
    try:
        yield
    finally:
        _HOOK.wanted = before


class _Hook(threading.local):
    """Torch asks it about every parameter of the process, from the first load on: to take it out again, or to put
    another in, would break the loops of threads that are registering one."""

    wanted = False
    """Of this thread."""
    _installing = threading.Lock()
    _is_installed = False

    @classmethod
    def install(cls) -> None:
        with cls._installing:
            if not cls._is_installed:
                register_module_parameter_registration_hook(_without_memory)
                cls._is_installed = True


_HOOK = _Hook()


def _without_memory(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> Any:
    if not _HOOK.wanted or parameter.is_meta:
        return parameter
    return torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)


def _kept_in_float32(module: torch.nn.Module, dtype: torch.dtype | None) -> Collection[str]:
    """The names, for a model of diffusers, or the keys, for one of transformers, of what it keeps in float32."""
    names: Collection[str] = getattr(module, "_keep_in_fp32_modules", None) or ()
    if not hasattr(module, "_keep_in_fp32_modules_strict"):
        return names
    patterns = [*(getattr(module, "_keep_in_fp32_modules_strict", None) or ())]
    if dtype == torch.float16:
        # They guard against its range, which bfloat16 has.
        patterns += names
    elif dtype != torch.bfloat16:
        return ()
    kept = [re.compile(pattern.replace("*", ".*")) for pattern in patterns]
    return {key for key in module.state_dict() if any(pattern.search(key) for pattern in kept)}


def _tied(module: torch.nn.Module) -> list[list[str]]:
    """The keys of each parameter: one, or more where it is tied. By their memory, which they have in common on `meta`
    too: while another thread is inside of accelerate's `init_empty_weights`, what is registered is another object."""
    keys: dict[Hashable, list[str]] = {}
    for key, tensor in module.named_parameters(remove_duplicate=False):
        place = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
        keys.setdefault(place, []).append(key)
    return list(keys.values())


def _tie(path: str, module: torch.nn.Module, group: list[str], missing: Collection[str]) -> None:
    """Make the keys of `group` one parameter again: the first that a file had."""
    source = next((key for key in group if key not in missing), None)
    if source is None:
        raise SafetensorsValidationError(path, "is wanted by the model and in no file", group[0])
    for key in group:
        if key != source:
            set_tensor(module, key, module.get_parameter(source))
