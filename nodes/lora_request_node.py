"""LoRA Request: the JSON object that services send, as a LORA_STACK."""

from __future__ import annotations

from comfy_api.latest import io

from .inputs import stack_output
from .runtime import get_runtime
from .stack_input import check, file_states, read_stack, tell_warnings, with_file_names

_EXAMPLE = '{"lora": {"enabled": true, "global_weight": 1.0, "models": [{"name": "styles/ink", "weight": 0.8}]}}'


class LoraRequest(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoraRequest",
            display_name="LoRA Request",
            category="WarmStack",
            description="Reads a request object (enabled, global_weight, models with weights and categories).",
            search_aliases=["lora json", "lora api", "warmstack"],
            inputs=[
                io.String.Input("request", multiline=True, default="", placeholder=_EXAMPLE, tooltip="Request JSON."),
            ],
            outputs=[stack_output()],
        )

    @classmethod
    async def validate_inputs(cls, request: str | None = None) -> bool | str:
        catalog = get_runtime().catalog
        return await check(catalog, lambda: read_stack(catalog, request))

    @classmethod
    def fingerprint_inputs(cls, request: str | None = None, **_: object) -> str:
        runtime = get_runtime()
        changes = runtime.linked_loras.changes() if request is None else None
        return file_states(runtime.catalog, read_stack(runtime.catalog, request), changes=changes)

    @classmethod
    def execute(cls, request: str) -> io.NodeOutput:
        runtime = get_runtime()
        stack = read_stack(runtime.catalog, request)
        runtime.linked_loras.note(stack.active)
        tell_warnings(stack)
        return io.NodeOutput(with_file_names(runtime.catalog, stack).to_tuples())
