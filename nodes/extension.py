"""WarmStackExtension: what the host asks for when it loads this pack."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .load_checkpoint_node import LoadCheckpoint
from .load_diffusion_model_node import LoadDiffusionModel
from .load_lora_stack_node import LoadLoraStack
from .lora_catalog_node import LoraCatalogNode
from .lora_request_node import LoraRequest
from .lora_stack_node import LoraStackNode
from .lora_tags_node import LoraTags
from .startup import start
from .status_node import Status
from .warm_node import Warm


class WarmStackExtension(ComfyExtension):  # type: ignore[misc]  # the host is untyped
    async def on_load(self) -> None:
        start()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadLoraStack,
            LoraStackNode,
            LoraTags,
            LoraRequest,
            LoraCatalogNode,
            Warm,
            Status,
            LoadDiffusionModel,
            LoadCheckpoint,
        ]
