"""LoRA Stack: a LORA_STACK from text, for WarmStack's loader or any other pack's."""

from __future__ import annotations

from comfy_api.latest import io

from .inputs import lora_stack_input, loras_input, stack_output
from .runtime import get_runtime
from .stack_input import check, file_states, read_stack, with_file_names


class LoraStackNode(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoraStack",
            display_name="LoRA Stack",
            category="WarmStack",
            description="Writes down a stack of LoRAs. Nothing is loaded until a loader uses it.",
            search_aliases=["lora stacker", "warmstack"],
            inputs=[
                loras_input(),
                io.String.Input(
                    "category",
                    default="",
                    optional=True,
                    tooltip="Settles names that exist in several categories. Blank: names must be unique.",
                ),
                lora_stack_input(),
            ],
            outputs=[stack_output()],
        )

    @classmethod
    async def validate_inputs(cls, loras: str | None = None, category: str | None = None) -> bool | str:
        catalog = get_runtime().catalog
        return await check(catalog, lambda: read_stack(catalog, loras, category=category or ""))

    @classmethod
    def fingerprint_inputs(cls, loras: str | None = None, category: str | None = "", **others: object) -> str:
        catalog = get_runtime().catalog
        linked = loras is None or category is None or "lora_stack" in others
        return file_states(catalog, read_stack(catalog, loras, category=category or ""), linked=linked)

    @classmethod
    def execute(cls, loras: str, category: str = "", lora_stack: object = None) -> io.NodeOutput:
        catalog = get_runtime().catalog
        written = with_file_names(catalog, read_stack(catalog, loras, category=category))
        return io.NodeOutput((read_stack(catalog, None, lora_stack) + written).to_tuples())
