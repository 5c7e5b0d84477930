"""LoRA Catalog: the names of LoRAs by category, base model and pattern, as a list that runs a graph once per name."""

from __future__ import annotations

from comfy_api.latest import io

from .runtime import get_runtime


class LoraCatalogNode(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoraCatalog",
            display_name="LoRA Catalog",
            category="WarmStack",
            description="Lists LoRA names; what is linked to it runs once per name.",
            search_aliases=["lora list", "lora sweep", "warmstack"],
            inputs=[
                io.String.Input("category", default="", optional=True, tooltip="Only this category. Blank: all."),
                io.String.Input(
                    "base_model",
                    default="",
                    optional=True,
                    tooltip="Only this base model, as in sdxl or flux. Blank: all.",
                ),
                io.String.Input(
                    "pattern", default="", optional=True, tooltip="Only names that match, as in styles/*. Blank: all."
                ),
            ],
            outputs=[io.String.Output(display_name="names", is_output_list=True)],
        )

    @classmethod
    def fingerprint_inputs(cls, category: str = "", base_model: str = "", pattern: str = "") -> str:
        # Once per prompt, in the thread that runs it: a file added since the last prompt is in the list.
        get_runtime().catalog.refresh()
        return repr(_names(category, base_model, pattern))

    @classmethod
    def execute(cls, category: str = "", base_model: str = "", pattern: str = "") -> io.NodeOutput:
        return io.NodeOutput(_names(category, base_model, pattern))


def _names(category: str | None, base_model: str | None, pattern: str | None) -> list[str]:
    files = get_runtime().catalog.select(category=category or "", base_model=base_model or "", pattern=pattern or "")
    return [file.name for file in files]
