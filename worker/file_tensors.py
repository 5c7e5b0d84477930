"""FileTensors: the pairs, alphas and cores of a LoRA file in its own spelling, as they go into a converter of diffusers
and are found again behind it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

from ..lora.fusing.fuse import PlainLora
from .header_scales import unreadable_alpha

FACTOR = re.compile(
    r"(?P<module>.+?)[._](?P<side>lora_down|lora_up|lora_A|lora_B|lora_mid|lora\.down|lora\.up)(?:\.default)?\.weight"
)
DOWN_SIDES = ("lora_down", "lora_A", "lora.down")
_UP_SIDES = ("lora_up", "lora_B", "lora.up")


class FileTensors:
    """By identity, to recognise them again behind the converter."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._alphas = {key.removesuffix(".alpha"): value for key, value in tensors.items() if key.endswith(".alpha")}
        self._mids: dict[str, torch.Tensor] = {}
        self._sides: dict[str, dict[bool, str]] = {}
        self._module_of: dict[int, str] = {}
        self.without_mids: dict[str, torch.Tensor] = {}
        """No converter of diffusers knows them; they come back by `mid`."""
        for key, tensor in tensors.items():
            factor = FACTOR.fullmatch(key)
            if factor and factor["side"] == "lora_mid":
                self._mids[factor["module"]] = tensor
                continue
            if factor:
                self._module_of[id(tensor)] = factor["module"]
                self._sides.setdefault(factor["module"], {})[factor["side"] in DOWN_SIDES] = key
            self.without_mids[key] = tensor

    def scale(self, down: torch.Tensor, up: torch.Tensor, alpha: torch.Tensor | None) -> float | None:
        """alpha / rank when an alpha stands beside the pair, before or after conversion; 1 when folded in."""
        module = self._module(down, up)
        if module is None and alpha is None and self._alphas:
            return 1.0
        alpha = self._alphas.get(module or "") if alpha is None else alpha
        return None if alpha is None else float(alpha) / down.shape[0]

    def dropped(self, used: frozenset[str]) -> dict[str, PlainLora]:
        """The pairs of which no factor is among the keys `used`, under the file's own names. Without those that are
        zero, which converters drop because they do nothing, and those that say again what a used pair says: some files
        hold one LoRA in two spellings."""
        pairs = {
            module: (self.without_mids[sides[True]], self.without_mids[sides[False]])
            for module, sides in self._sides.items()
            if len(sides) == 2
        }
        lost = {module for module in pairs if used.isdisjoint(self._sides[module].values())}
        said: dict[object, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for module in pairs.keys() - lost if lost else ():
            said.setdefault(_likeness(*pairs[module]), []).append(pairs[module])
        found: dict[str, PlainLora] = {}
        for module, (down, up) in pairs.items():
            if module not in lost or not (down.any() and up.any()):
                continue
            if not any(torch.equal(down, a) and torch.equal(up, b) for a, b in said.get(_likeness(down, up), ())):
                scale = self.scale(down, up, None)
                found[module] = PlainLora(up, down, 1.0 if scale is None else scale, self._mids.get(module))
        return found

    def mid(self, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor | None:
        module = self._module(down, up)
        return None if module is None else self._mids.get(module)

    def _module(self, down: torch.Tensor, up: torch.Tensor) -> str | None:
        module = self._module_of.get(id(down))
        return module if module == self._module_of.get(id(up)) else None


def _likeness(down: torch.Tensor, up: torch.Tensor) -> object:
    """Equal for equal pairs, and for few others."""
    return down.shape, up.shape, down.dtype, up.dtype, *down.flatten()[:4].tolist(), *up.flatten()[:4].tolist()


def with_positive_alphas(name: str, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The sign of a negative alpha goes to a factor: converters that share the scale between both never come to an end
    with it. Raises UnsupportedLoraError for an alpha that is no finite number."""
    alphas = {key: _alpha(name, key, value) for key, value in tensors.items() if key.endswith(".alpha")}
    negative = {key.removesuffix(".alpha") for key, alpha in alphas.items() if alpha < 0}
    if not negative:
        return tensors
    # In other spellings no factor would take the sign; there converters leave the scale alone.
    negative &= {factor["module"] for factor in map(FACTOR.fullmatch, tensors) if factor}

    def positive(key: str, tensor: torch.Tensor) -> torch.Tensor:
        factor = FACTOR.fullmatch(key)
        module = factor["module"] if factor and factor["side"] in _UP_SIDES else key.removesuffix(".alpha")
        # By way of float64, which is exact: eight-bit floats cannot be negated.
        return (-tensor.double()).to(tensor.dtype) if module in negative else tensor

    return {key: positive(key, tensor) for key, tensor in tensors.items()}


def _alpha(name: str, key: str, value: torch.Tensor) -> float:
    alpha = float(value) if value.numel() == 1 else math.nan
    if not math.isfinite(alpha):
        raise unreadable_alpha(name, key.removesuffix(".alpha"), value.tolist())
    return alpha
