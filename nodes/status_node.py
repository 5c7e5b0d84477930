"""WarmStack Status: what is in memory and what the prefetcher did, as JSON."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from .runtime import get_runtime


class Status(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackStatus",
            display_name="WarmStack Status",
            category="WarmStack",
            description="The numbers of GET /warmstack/v1/status at the moment when this node runs.",
            search_aliases=["lora cache", "warmstack"],
            inputs=[],
            outputs=[io.String.Output(display_name="status")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        # NaN differs from itself: a status from the cache would be an old one.
        return float("nan")

    @classmethod
    def execute(cls) -> io.NodeOutput:
        status = json.dumps(get_runtime().status())
        return io.NodeOutput(status, ui=ui.PreviewText(status))
