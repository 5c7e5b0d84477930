"""The keys of a LoRA file -> the module paths of a diffusers pipeline, by diffusers' own converters.

Scales are found by following each tensor through the converter: one that it merely renamed still has the alpha that
stood beside it in the file; one that it computed (a Flux qkv split, say) has the alpha folded in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from ..lora.errors import LoraError
from ..lora.fusing.fuse import PlainLora
from .trace import Conversion, Parts, convert

_FACTOR = re.compile(
    r"(?P<module>.+?)[._](?P<side>lora_down|lora_up|lora_A|lora_B|lora_mid|lora\.down|lora\.up)(?:\.default)?\.weight"
)
_DOWN_SIDES = ("lora_down", "lora_A", "lora.down")
_UP_SIDES = ("lora_up", "lora_B", "lora.up")
_PLACED = re.compile(r"(?P<module>.+)\.(?P<side>lora_A|lora_B)(?:\.default)?\.weight")
_NOT_PLAIN = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "boft_": "BOFT",
    ".a1.": "GLoRA",
    "ia3_": "IA3",
    ".diff": "full-difference",
    "w_norm": "norm",
    "b_norm": "norm",
    "lora_B.bias": "bias",
    "lora_up.bias": "bias",
}
_GIVES_UP = (
    ValueError, LookupError, AttributeError, RuntimeError, AssertionError, TypeError, ArithmeticError, NameError,
    re.error,
)  # fmt: skip
"""How converters meet the keys of another model (NameError: a variable that only an expected key would have set)."""
_PEFT_METADATA = "lora_adapter_metadata"


class UnsupportedLoraError(LoraError):
    """The file is a LoRA that cannot be applied here as its author meant it; refused rather than applied wrong."""


class Place(NamedTuple):
    """One weight of a pipeline."""

    component: str
    """Attribute of the pipeline: `unet`, `transformer`, `text_encoder`, ..."""
    module: str
    """Dotted path of the module inside the component."""


class LoraPipeline(Protocol):
    """What is asked of a diffusers pipeline: any class with a LoRA loader mixin."""

    _lora_loadable_modules: list[str]
    device: torch.device

    def __call__(self, **inputs: Any) -> Any: ...

    @classmethod
    def lora_state_dict(cls, state: dict[str, torch.Tensor], /, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class NamedLora:
    """A LoRA file in the names of one pipeline class."""

    loras: Mapping[Place, PlainLora]
    """At strength 1. Views of the adapter's tensors wherever the converter computed nothing."""
    homeless: Mapping[str, PlainLora]
    """By module: what the converter gave to no component of the pipeline, or dropped."""
    leftover: tuple[str, ...]
    """Converted keys that have no partner."""


def named_lora(
    pipeline: LoraPipeline, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> NamedLora:
    """Every low-rank pair of file `name` under the place it would have in `pipeline`, whether or not that exists.

    Raises UnsupportedLoraError for formats that are not plain LoRA and for keys that no converter of diffusers reads.
    """
    configs = _peft_configs(metadata)
    _require_plain(name, tensors, configs)
    source = _Source(_with_positive_alphas(name, tensors))
    conversion = _converted(pipeline, name, source.without_mids)
    loras: dict[Place, PlainLora] = {}
    homeless = source.dropped(conversion.used)
    leftover: list[str] = []
    for component, keys in conversion.parts.items():
        for module, (down, up) in _pop_pairs(keys, _PLACED if component else _FACTOR).items():
            scale = source.scale(down, up, keys.pop(f"{module}.alpha", None))
            if scale is None:
                scale = _configured_scale(name, configs.get(component, {}), module, down.shape[0])
            lora = PlainLora(up, down, scale, source.mid(down, up))
            if component:
                loras[Place(component, module)] = lora
            else:
                homeless[module] = lora
        leftover += [f"{component}.{key}" if component else key for key in keys]
    return NamedLora(loras, homeless, tuple(leftover))


class _Source:
    """The file's tensors by identity, to recognise them again behind the converter."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._alphas = {key.removesuffix(".alpha"): value for key, value in tensors.items() if key.endswith(".alpha")}
        self._mids: dict[str, torch.Tensor] = {}
        self._sides: dict[str, dict[bool, str]] = {}
        self._module_of: dict[int, str] = {}
        self.without_mids: dict[str, torch.Tensor] = {}
        """No converter of diffusers knows them; they come back by `mid`."""
        for key, tensor in tensors.items():
            factor = _FACTOR.fullmatch(key)
            if factor and factor["side"] == "lora_mid":
                self._mids[factor["module"]] = tensor
                continue
            if factor:
                self._module_of[id(tensor)] = factor["module"]
                self._sides.setdefault(factor["module"], {})[factor["side"] in _DOWN_SIDES] = key
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


def _require_plain(name: str, tensors: Mapping[str, torch.Tensor], configs: Mapping[str, Mapping[str, object]]) -> None:
    kinds = {kind for key in tensors for mark, kind in _NOT_PLAIN.items() if mark in key}
    if any(config.get("use_dora") for config in configs.values()):
        kinds.add("DoRA")
    if kinds:
        raise UnsupportedLoraError(
            f"LoRA {name!r} is not plain LoRA ({', '.join(sorted(kinds))}) and cannot be applied exactly here; "
            "load it with pipeline.load_lora_weights, or use a plain LoRA"
        )


def _with_positive_alphas(name: str, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The sign of a negative alpha goes to a factor: converters that share the scale between both never come to an end
    with it. Raises UnsupportedLoraError for an alpha that is no finite number."""
    alphas = {key: _alpha(name, key, value) for key, value in tensors.items() if key.endswith(".alpha")}
    negative = {key.removesuffix(".alpha") for key, alpha in alphas.items() if alpha < 0}
    if not negative:
        return tensors
    # In other spellings no factor would take the sign; there converters leave the scale alone.
    negative &= {factor["module"] for factor in map(_FACTOR.fullmatch, tensors) if factor}

    def positive(key: str, tensor: torch.Tensor) -> torch.Tensor:
        factor = _FACTOR.fullmatch(key)
        module = factor["module"] if factor and factor["side"] in _UP_SIDES else key.removesuffix(".alpha")
        # By way of float64, which is exact: eight-bit floats cannot be negated.
        return (-tensor.double()).to(tensor.dtype) if module in negative else tensor

    return {key: positive(key, tensor) for key, tensor in tensors.items()}


def _alpha(name: str, key: str, value: torch.Tensor) -> float:
    alpha = float(value) if value.numel() == 1 else math.nan
    if not math.isfinite(alpha):
        raise _unreadable_alpha(name, key.removesuffix(".alpha"), value.tolist())
    return alpha


def _unreadable_alpha(name: str, module: str, found: object) -> UnsupportedLoraError:
    return UnsupportedLoraError(
        f"LoRA {name!r} is damaged: the alpha of {module!r} is no number ({str(found)[:40]}); download or save it again"
    )


def _converted(pipeline: LoraPipeline, name: str, tensors: Mapping[str, torch.Tensor]) -> Conversion:
    """The keys in PEFT's names, by component; "" has those of no component."""
    unet = getattr(pipeline, "unet", None)
    options = {"unet_config": unet.config} if unet is not None else {}

    def by_component(state: dict[str, torch.Tensor]) -> Parts:
        answer = type(pipeline).lora_state_dict(state, **options)
        found = answer[0] if isinstance(answer, tuple) else answer
        return {part: _in_peft_names(part, keys) for part, keys in _split(pipeline, found).items()}

    try:
        return convert(tensors, by_component)
    except _GIVES_UP as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise UnsupportedLoraError(
            f"LoRA {name!r} does not fit {type(pipeline).__name__}: its keys cannot be converted ({reason[:120]}); "
            "use a LoRA made for this model"
        ) from problem


def _split(pipeline: LoraPipeline, state: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        owned = part in pipeline._lora_loadable_modules
        parts.setdefault(part if owned else "", {})[rest if owned else key] = tensor
    return parts


def _in_peft_names(part: str, keys: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if not part or all("lora_A" in key or "lora_B" in key for key in keys):
        return keys
    if part.startswith("text_encoder"):
        keys = convert_state_dict_to_peft(convert_state_dict_to_diffusers(keys))
    else:
        keys = convert_unet_state_dict_to_peft(keys)
    return keys


def _pop_pairs(
    named: dict[str, torch.Tensor], pattern: re.Pattern[str]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(down, up) by module."""
    sides: dict[str, dict[bool, str]] = {}
    for key in named:
        placed = pattern.fullmatch(key)
        if placed:
            sides.setdefault(placed["module"], {})[placed["side"] in _DOWN_SIDES] = key
    whole = {module: keys for module, keys in sides.items() if len(keys) == 2}
    return {module: (named.pop(keys[True]), named.pop(keys[False])) for module, keys in whole.items()}


def _peft_configs(metadata: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Per component the PEFT configuration that `save_lora_weights` writes into the header."""
    try:
        entries = json.loads(metadata.get(_PEFT_METADATA, "{}"))
    except ValueError:
        return {}
    configs: dict[str, dict[str, object]] = {}
    for key, value in entries.items() if isinstance(entries, dict) else ():
        component, _, setting = key.partition(".")
        configs.setdefault(component, {})[setting] = value
    return configs


def _configured_scale(name: str, config: Mapping[str, object], module: str, rank: int) -> float:
    """Raises UnsupportedLoraError for a header that makes no sense."""
    alpha = config.get("lora_alpha", rank)
    patterns = config.get("alpha_pattern")
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if _means(name, pattern, module):
            alpha = value
            break
    if not isinstance(alpha, (int, float)):
        return 1.0
    if not math.isfinite(alpha):
        raise _unreadable_alpha(name, module, alpha)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _means(name: str, pattern: str, module: str) -> bool:
    try:
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module) is not None
    except re.error as problem:
        raise UnsupportedLoraError(
            f"LoRA {name!r} names modules by {pattern!r} (alpha_pattern in its header), which is no regular expression "
            f"({problem}); save it again with one that is"
        ) from problem
