"""LoRA Catalog: the names of LoRAs by category, base model and pattern, as a list that runs a graph once per name."""

from __future__ import annotations

from comfy_api.latest import io

from ..lora.errors import LoraError
from ..lora.library.file import LoraFile
from .runtime import get_runtime
from .server.off_loop import ask_disk

_CATEGORIES = 12
"""Named in the line that says that nothing was found."""


class LoraCatalogNode(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoraCatalog",
            display_name="LoRA Catalog",
            category="WarmStack",
            description="Lists LoRA names; what is linked to it runs once per name. Damaged files are left out.",
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
    async def validate_inputs(
        cls, category: str | None = None, base_model: str | None = None, pattern: str | None = None
    ) -> bool | str:
        # In a thread: it may look at the disk, and validation happens on the server's loop.
        return await ask_disk(_verdict, category, base_model, pattern)

    @classmethod
    def fingerprint_inputs(cls, category: str = "", base_model: str = "", pattern: str = "") -> str:
        # Once per prompt, in the thread that runs it: a file added since the last prompt is in the list. The files
        # count, not only their names: what loads them over a link is told no name before it runs.
        get_runtime().catalog.refresh()
        return repr([(file.name, file.mtime_ns, file.size_bytes) for file in _files(category, base_model, pattern)])

    @classmethod
    def execute(cls, category: str = "", base_model: str = "", pattern: str = "") -> io.NodeOutput:
        names = [file.name for file in _files(category, base_model, pattern)]
        if not names:
            # What is linked to an empty list fails in the host, with an error that names neither list nor filter.
            raise LoraError(_nothing(category, base_model, pattern))
        return io.NodeOutput(names)


def _verdict(category: str | None, base_model: str | None, pattern: str | None) -> bool | str:
    """Of constant filters; one that is linked is None, and what it lets through is known when the node runs."""
    if _files(category, base_model, pattern):
        return True
    get_runtime().catalog.refresh()
    return bool(_files(category, base_model, pattern)) or _nothing(category, base_model, pattern)


def _files(category: str | None, base_model: str | None, pattern: str | None) -> list[LoraFile]:
    # One that cannot be loaded would end the sweep for all that come after it.
    return [file for file in _selected(category, base_model, pattern) if not file.problem]


def _selected(category: str | None, base_model: str | None, pattern: str | None) -> tuple[LoraFile, ...]:
    return get_runtime().catalog.select(category=category or "", base_model=base_model or "", pattern=pattern or "")


def _nothing(category: str | None, base_model: str | None, pattern: str | None) -> str:
    given = {"category": category, "base_model": base_model, "pattern": pattern}
    asked = " and ".join(f"{name} {value!r}" for name, value in given.items() if value) or "any name"
    which = "LoRA that can be loaded" if _selected(category, base_model, pattern) else "LoRA"
    files = get_runtime().catalog.snapshot.files
    known = ", ".join(sorted({repr(file.category) for file in files if file.category})[:_CATEGORIES]) or "none"
    return f"no {which} has {asked}; leave a filter blank or choose another (categories: {known})"
