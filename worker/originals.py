"""Originals: the own weights of modules, kept aside while LoRAs are added to them.

They belong to the module, not to a pipeline: pipelines made with `from_pipe` share models, and what one has applied is
no original for the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch


@dataclass(slots=True)
class _Kept:
    copy: torch.Tensor
    """The original while the weight is `changed`; of an earlier time otherwise."""
    changed: bool = False


class Originals:
    """Copies live as long as their modules, or until they are dropped. Not thread-safe but for `nbytes`."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[torch.nn.Module, _Kept] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """Memory of all copies."""
        # Not values(): another thread may add to them meanwhile.
        modules = [module for ref in self._kept.keyrefs() if (module := ref()) is not None]
        return sum(kept.copy.nbytes for module in modules if (kept := self._kept.get(module)) is not None)

    def changed(self, module: torch.nn.Module) -> bool:
        """Whether its weight is another than its own."""
        kept = self._kept.get(module)
        return kept is not None and kept.changed

    def give_back(self, module: torch.nn.Module) -> torch.Tensor:
        """Its weight, with the original bits again, to be written into; a copy of them is put aside."""
        weight = weight_of(module)
        kept = self._kept.get(module)
        if kept is not None and kept.changed:
            weight.copy_(kept.copy)
            return weight
        if kept is not None and (kept.copy.shape, kept.copy.dtype) == (weight.shape, weight.dtype):
            # Others may have written into it since (`fuse_lora`, `load_state_dict`). The copy stays on its device:
            # with offloading, the weight is on the GPU now and then.
            kept.copy.copy_(weight)
        else:
            kept = self._kept[module] = _Kept(weight.detach().clone())
        kept.changed = True
        return weight

    def restore(self, module: torch.nn.Module) -> None:
        kept = self._kept.get(module)
        if kept is not None and kept.changed:
            weight_of(module).copy_(kept.copy)
            kept.changed = False

    def drop(self, module: torch.nn.Module) -> None:
        """Without its copy, the weight that it has now counts as its own."""
        self._kept.pop(module, None)


def weight_of(module: torch.nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight
