"""FusedLoraAdapter: several plain LoRA patches of one weight as one host adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase

from ...lora.fusing.fuse import PlainLora, add_fused_, fits, once_each
from .layers import Summands

logger = logging.getLogger("warmstack")
_FIELDS = 4


class FusedLoraAdapter(WeightAdapterBase):  # type: ignore[misc]  # the host is untyped
    """Sum of plain LoRA patches: `weight += Σ strength_i * alpha_i / rank_i * up_i @ down_i`, by one matrix product.

    `weights` is flat, four entries per summand (up, down, mid or None, scale): the host's dynamic path rebuilds an
    adapter as `type(v)(v.loaded_keys, prepared)`, with each tensor replaced by its copy on the device and everything
    else as it was.
    """

    name = "warmstack_fused"

    def __init__(self, loaded_keys: set[str], weights: Sequence[Any]) -> None:
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def of(cls, summands: Summands) -> FusedLoraAdapter:
        # Here and not only where they are added: the host's dynamic path copies each, and one file's are then two.
        if len(set(map(id, summands[::_FIELDS]))) * _FIELDS < len(summands):
            loras = once_each(cls(set(), summands).loras())
            summands = [part for lora in loras for part in (lora.up, lora.down, lora.mid, lora.scale)]
        return cls(set(), tuple(summands))

    def loras(self) -> Iterator[PlainLora]:
        """The summands, with their strengths in their scales."""
        for at in range(0, len(self.weights), _FIELDS):
            up, down, mid, scale = self.weights[at : at + _FIELDS]
            yield PlainLora(up, down, scale, mid)

    def calculate_weight(
        self,
        weight: torch.Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: object,
        function: Callable[[torch.Tensor], torch.Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: object = None,
    ) -> torch.Tensor:
        """Adds to `weight` in place and returns it. `offset` and `strength_model` are already applied by the host, and
        patches with a `function` are never fused. Arithmetic is fp32 whatever `intermediate_dtype` says: the host's
        low-memory path asks for the weight's own dtype, in which eight small deltas would round away.
        """
        fitting = []
        for lora in self.loras():
            if fits(lora, weight.shape):
                fitting.append(lora if strength == 1.0 else replace(lora, scale=lora.scale * strength))
            else:
                # The host also takes factors that only have the right number of elements, and says what it cannot use.
                stock = self._stock(lora)
                stock.calculate_weight(weight, key, strength, 1.0, offset, function, torch.float32, original_weight)
        try:
            return add_fused_(weight, fitting)
        except RuntimeError as error:  # out of memory comes as several kinds, cuBLAS's among them
            if weight.device.type == "cpu":
                raise
            # The host's dynamic path would take the weight for patched from then on, under any stack. Nothing has been
            # added yet: what writes to the weight comes last.
            logger.warning("WarmStack: LoRAs for %s are added on the CPU, the GPU could not: %s", key, error)
        return weight.copy_(add_fused_(weight.cpu(), fitting))

    def h(self, x: torch.Tensor, base_out: torch.Tensor) -> torch.Tensor:
        """The sum of the host's own bypass terms."""
        total = torch.zeros_like(base_out)
        for lora in self.loras():
            stock = self._stock(lora)
            for attribute in ("multiplier", "is_conv", "conv_dim", "kw_dict", "kernel_size", "in_channels"):
                if hasattr(self, attribute):
                    setattr(stock, attribute, getattr(self, attribute))
            total = total + stock.h(x, base_out)
        return total

    def _stock(self, lora: PlainLora) -> Any:
        weights = (lora.up, lora.down, lora.scale * lora.down.shape[0], lora.mid, None, None)
        return LoRAAdapter(self.loaded_keys, weights)
