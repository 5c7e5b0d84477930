"""HeaderScales: how strongly each module of a LoRA counts, as the PEFT configuration in its header says.

`save_lora_weights` writes it, per component, into files whose keys hold no alphas.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from .errors import UnsupportedLoraError

_KEY = "lora_adapter_metadata"


class HeaderScales:
    """Of file `name`."""

    def __init__(self, name: str, metadata: Mapping[str, str], *, takes_plain_alpha: bool = False) -> None:
        """`takes_plain_alpha`: where there is no configuration, `alpha` in the header is that of every module."""
        self._name = name
        self._configs = _by_component(metadata.get(_KEY, "{}"))
        self._plain_alpha = _number(metadata.get("alpha")) if takes_plain_alpha and not self._configs else None

    @property
    def has_dora(self) -> bool:
        return any(config.get("use_dora") for config in self._configs.values())

    def of(self, component: str, module: str, rank: int) -> float:
        """1 where the header says nothing. Raises UnsupportedLoraError for one that makes no sense."""
        config = self._configs.get(component, {})
        alpha = self._alpha(config, module, rank)
        if not isinstance(alpha, (int, float)):
            return 1.0
        if not math.isfinite(alpha):
            raise unreadable_alpha(self._name, module, alpha)
        return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank

    def _alpha(self, config: Mapping[str, object], module: str, rank: int) -> object:
        patterns = config.get("alpha_pattern")
        for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
            if self._means(pattern, module):
                return alpha
        return config.get("lora_alpha", rank if self._plain_alpha is None else self._plain_alpha)

    def _means(self, pattern: str, module: str) -> bool:
        try:
            return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module) is not None
        except re.error as problem:
            raise UnsupportedLoraError(
                f"LoRA {self._name!r} names modules by {pattern!r} (alpha_pattern in its header), which is no regular "
                f"expression ({problem}); save it again with one that is"
            ) from problem


def unreadable_alpha(name: str, module: str, found: object) -> UnsupportedLoraError:
    return UnsupportedLoraError(
        f"LoRA {name!r} is damaged: the alpha of {module!r} is no number ({str(found)[:40]}); download or save it again"
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _by_component(text: str) -> dict[str, dict[str, object]]:
    try:
        entries = json.loads(text)
    except ValueError:
        return {}
    configs: dict[str, dict[str, object]] = {}
    for key, value in entries.items() if isinstance(entries, dict) else ():
        component, _, setting = key.partition(".")
        configs.setdefault(component, {})[setting] = value
    return configs
