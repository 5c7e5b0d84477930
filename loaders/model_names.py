"""The names that a model gives to what a file has under older ones, or under those of the model around it."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .files.header import SafetensorsHeader


def named_for_model(module: torch.nn.Module, headers: Mapping[str, SafetensorsHeader]) -> dict[str, SafetensorsHeader]:
    """`headers` with the names that `module` has for their tensors, as its own library finds them: attention blocks of
    before diffusers 0.17, what transformers has renamed, and the prefix of a base model that is there or is not. What
    needs more than a name, like experts that are merged, stays as it is."""
    shapes = {key: entry.shape for header in headers.values() for key, entry in header.tensors.items()}
    names = _diffusers_names(module, shapes) or _transformers_names(module, shapes)
    renamed = {key: name for key, name in names.items() if name != key}
    # What has the model's own name is never displaced, nor is the first of two that would get it.
    taken = shapes.keys() - renamed.keys()
    for key, name in list(renamed.items()):
        if name in taken:
            del renamed[key]
        taken.add(name)
    if not renamed:
        return dict(headers)
    return {
        path: replace(header, tensors={renamed.get(key, key): entry for key, entry in header.tensors.items()})
        for path, header in headers.items()
    }


def _diffusers_names(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """key -> name, by what `from_pretrained` calls on the state dict; it may drop a part of the module too."""
    fix: Any = getattr(module, "_fix_state_dict_keys_on_load", None)
    if fix is None:
        return {}
    stand_ins = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    state = OrderedDict(stand_ins)
    fix(state)
    keys = {id(tensor): key for key, tensor in stand_ins.items()}
    return {keys[id(tensor)]: name for name, tensor in state.items() if id(tensor) in keys}


def _transformers_names(module: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    prefix = getattr(module, "base_model_prefix", None)
    if not isinstance(prefix, str):
        return {}
    wanted = module.state_dict(keep_vars=True).keys()
    if shapes.keys() <= wanted:
        return {}
    renamings = _renamings(module)
    return {key: next(filter(wanted.__contains__, _candidates(key, renamings, prefix)), key) for key in shapes}


def _candidates(key: str, renamings: list[Any], prefix: str) -> list[str]:
    """In the order in which transformers prefers them."""
    renamed = key
    for renaming in renamings:
        renamed = renaming.rename_source_key(renamed)[0]
    found = []
    for name in (renamed, key):
        found += [name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"]
    return found


def _renamings(module: torch.nn.Module) -> list[Any]:
    """From the tables of transformers 5; without what computes new tensors. Whoever has such a model has imported
    them."""
    tables = sys.modules.get("transformers.conversion_mapping")
    entries: list[Any] = getattr(tables, "get_model_conversion_mapping", lambda _: [])(module)
    return [entry for entry in entries if not hasattr(entry, "operations")]
