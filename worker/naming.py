"""The keys of a LoRA file -> the module paths of a diffusers pipeline, by diffusers' own converters.

Scales are found by following each tensor through the converter: one that it merely renamed still has the alpha that
stood beside it in the file; one that it computed (a Flux qkv split, say) has the alpha folded in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from ..lora.fusing.fuse import PlainLora
from .errors import UnsupportedLoraError
from .file_tensors import DOWN_SIDES, FACTOR, FileTensors, with_positive_alphas
from .header_scales import HeaderScales
from .lora_pipeline import LoraPipeline, Place
from .trace import Conversion, Parts, convert

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
    header = HeaderScales(name, metadata, takes_plain_alpha=_takes_plain_alpha(pipeline, tensors))
    _require_plain(name, tensors, header)
    source = FileTensors(with_positive_alphas(name, tensors))
    conversion = _converted(pipeline, name, source.without_mids)
    loras: dict[Place, PlainLora] = {}
    homeless = source.dropped(conversion.used)
    leftover: list[str] = []
    for component, keys in conversion.parts.items():
        for module, (down, up) in _pop_pairs(keys, _PLACED if component else FACTOR).items():
            scale = source.scale(down, up, keys.pop(f"{module}.alpha", None))
            if scale is None:
                scale = header.of(component, module, down.shape[0])
            lora = PlainLora(up, down, scale, source.mid(down, up))
            if component:
                loras[Place(component, module)] = lora
            else:
                homeless[module] = lora
        leftover += [f"{component}.{key}" if component else key for key in keys]
    return NamedLora(loras, homeless, tuple(leftover))


def _require_plain(name: str, tensors: Mapping[str, torch.Tensor], header: HeaderScales) -> None:
    kinds = {kind for key in tensors for mark, kind in _NOT_PLAIN.items() if mark in key}
    if header.has_dora:
        kinds.add("DoRA")
    if kinds:
        raise UnsupportedLoraError(
            f"LoRA {name!r} is not plain LoRA ({', '.join(sorted(kinds))}) and cannot be applied exactly here; "
            "load it with pipeline.load_lora_weights, or use a plain LoRA"
        )


def _takes_plain_alpha(pipeline: LoraPipeline, tensors: Iterable[str]) -> bool:
    """MiniMax-H3's loader does, unless keys say it; from tensors alone, its converter cannot."""
    return hasattr(pipeline, "transformer_ref_name") and not any(key.endswith(".alpha") for key in tensors)


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
            sides.setdefault(placed["module"], {})[placed["side"] in DOWN_SIDES] = key
    whole = {module: keys for module, keys in sides.items() if len(keys) == 2}
    return {module: (named.pop(keys[True]), named.pop(keys[False])) for module, keys in whole.items()}
