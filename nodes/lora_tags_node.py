"""LoRA Tags: `<lora:...>` tags out of a prompt, as text without them and a LORA_STACK."""

from __future__ import annotations

from comfy_api.latest import io

from ..lora.stacks.stack import LoraStack
from ..lora.stacks.tags import COMFY, SYNTAXES, extract_tags
from .inputs import stack_output
from .runtime import get_runtime
from .stack_input import check, file_states, tell_warnings, with_file_names


class LoraTags(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoraTags",
            display_name="LoRA Tags",
            category="WarmStack",
            description="Takes <lora:name:strength> tags out of a prompt and returns them as a stack.",
            search_aliases=["lora tag", "lora prompt", "a1111 lora", "warmstack"],
            inputs=[
                io.String.Input("text", multiline=True, default="", tooltip="A prompt with <lora:...> tags."),
                io.Combo.Input(
                    "syntax",
                    options=list(SYNTAXES),
                    default=COMFY,
                    optional=True,
                    tooltip="<lora:name:a:b> means model a, clip b (comfy) or text encoder a, UNet b (a1111).",
                ),
            ],
            outputs=[io.String.Output(display_name="text"), stack_output()],
        )

    @classmethod
    async def validate_inputs(cls, text: str | None = None, syntax: str | None = None) -> bool | str:
        return await check(get_runtime().catalog, lambda: _tagged(text or "", syntax or COMFY)[1])

    @classmethod
    def fingerprint_inputs(cls, text: str | None = None, syntax: str | None = None, **_: object) -> str:
        runtime = get_runtime()
        changes = runtime.linked_loras.changes() if text is None else None
        return file_states(runtime.catalog, _tagged(text or "", syntax or COMFY)[1], changes=changes)

    @classmethod
    def execute(cls, text: str, syntax: str = COMFY) -> io.NodeOutput:
        cleaned, stack = _tagged(text, syntax)
        runtime = get_runtime()
        runtime.linked_loras.note(stack.active)
        tell_warnings(stack)
        return io.NodeOutput(cleaned, with_file_names(runtime.catalog, stack).to_tuples())


def _tagged(text: str, syntax: str) -> tuple[str, LoraStack]:
    cleaned, rows = extract_tags(text, syntax)
    return cleaned, LoraStack(tuple(rows))
