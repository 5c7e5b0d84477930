"""Warm LoRAs: brings adapters into memory now, for a prompt that comes later."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from .inputs import loras_input
from .runtime import get_runtime
from .stack_input import check, read_stack, with_file_names


class Warm(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackWarm",
            display_name="Warm LoRAs",
            category="WarmStack",
            description="Starts to bring LoRAs into memory in the background and goes on at once.",
            search_aliases=["preload lora", "prefetch lora", "warmstack"],
            inputs=[loras_input()],
            outputs=[io.String.Output(display_name="report")],
            is_output_node=True,
        )

    @classmethod
    async def validate_inputs(cls, loras: str | None = None) -> bool | str:
        catalog = get_runtime().catalog
        return await check(catalog, lambda: read_stack(catalog, loras))

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        # NaN differs from itself: what was warm an hour ago may be gone.
        return float("nan")

    @classmethod
    def execute(cls, loras: str) -> io.NodeOutput:
        runtime = get_runtime()
        stack = with_file_names(runtime.catalog, read_stack(runtime.catalog, loras))
        report = json.dumps(runtime.act("warm", tuple(row.name for row in stack)))
        return io.NodeOutput(report, ui=ui.PreviewText(report))
