"""LoRA Stack: a LORA_STACK from text, for WarmStack's loader or any other pack's."""

from __future__ import annotations

from comfy_api.latest import io

from .inputs import lora_stack_input, loras_input, stack_output
from .runtime import get_runtime
from .stack_input import check, file_states, read_stack, tell_warnings, with_file_names


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
        runtime = get_runtime()
        is_linked = loras is None or category is None or "lora_stack" in others
        changes = runtime.linked_loras.changes() if is_linked else None
        return file_states(
            runtime.catalog, read_stack(runtime.catalog, loras, category=category or ""), changes=changes
        )

    @classmethod
    def execute(cls, loras: str, category: str = "", lora_stack: object = None) -> io.NodeOutput:
        runtime = get_runtime()
        rows = read_stack(runtime.catalog, loras, category=category)
        before = read_stack(runtime.catalog, None, lora_stack)
        runtime.linked_loras.note((*before.active, *rows.active))
        tell_warnings(rows)
        return io.NodeOutput((before + with_file_names(runtime.catalog, rows)).to_tuples())
