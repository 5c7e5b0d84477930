"""Load LoRA Stack: any number of LoRAs onto a model and its text encoder, for about the cost of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ..lora.errors import AdapterLoadCancelledError
from ..lora.stacks.stack import LoraRow, LoraStack
from .inputs import lora_stack_input, loras_input, stack_output
from .patches.applied_stack import AppliedStack, StackMath, apply_stack
from .patches.leasing import LeasedRow, lease_rows
from .patches.report import RowReport, as_json, render, wrong_model
from .runtime import Runtime, get_runtime
from .stack_input import check, file_states, read_stack

logger = logging.getLogger("warmstack")

REPORT_KEY = "warmstack_report"
"""What the stack editor on the node looks for in the host's `executed` event."""


class LoadLoraStack(io.ComfyNode):  # type: ignore[misc]  # the host is untyped
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="WarmStackLoadLoraStack",
            display_name="Load LoRA Stack",
            category="WarmStack",
            description="Applies a whole stack of LoRAs at once, from memory where the queue could be read ahead.",
            search_aliases=["lora", "lora stack", "multi lora", "load lora", "warmstack"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model that the LoRAs are applied to."),
                loras_input(),
                io.Combo.Input(
                    "math",
                    options=["fused", "exact"],
                    default="fused",
                    optional=True,
                    tooltip="fused: one matrix product per weight, equal to 1e-6 of the update. "
                    "exact: bit for bit what chained Load LoRA nodes give.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder. Leave it out for model-only LoRAs."),
                lora_stack_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                stack_output(),
                io.String.Output(display_name="report"),
            ],
        )

    @classmethod
    async def validate_inputs(cls, loras: str | None = None) -> bool | str:
        catalog = get_runtime().catalog
        return await check(catalog, lambda: read_stack(catalog, loras))

    @classmethod
    def fingerprint_inputs(cls, loras: str | None = None, **others: object) -> str:
        runtime = get_runtime()
        is_linked = loras is None or "lora_stack" in others
        changes = runtime.linked_loras.changes() if is_linked else None
        return file_states(runtime.catalog, read_stack(runtime.catalog, loras), changes=changes)

    @classmethod
    def execute(
        cls, model: Any, loras: str, math: StackMath = "fused", clip: Any = None, lora_stack: object = None
    ) -> io.NodeOutput:
        runtime = get_runtime()
        stack = read_stack(runtime.catalog, loras, lora_stack)
        # The host's patches may act at strength 0 too, where its loader for a model alone does nothing.
        rows = stack.active if clip is not None else tuple(row for row in stack.active if row.strength_model != 0)
        notes = [f"{row.name}: skipped, {_why_skipped(row)}" for row in stack if row not in rows]
        notes += stack.warnings
        runtime.linked_loras.note(stack.active)
        if not rows:
            return _output(model, clip, _tuples(runtime, stack, ()), [], notes, math)
        leased = _lease(runtime, rows)
        applied = apply_stack(model, clip, leased, math, runtime.target_models)
        reports = _reports(leased, applied, clip_given=clip is not None)
        lost = zip(leased, applied.lost, strict=True)
        notes += [_why_lost(one, kind) for one, kind in lost if kind and one.row.strength_model]
        return _output(applied.model, applied.clip, _tuples(runtime, stack, leased), reports, notes, math)


def _why_skipped(row: LoraRow) -> str:
    return "its model strength is 0 and no clip is connected" if row.is_active else "both strengths are 0"


def _why_lost(row: LeasedRow, kind: str) -> str:
    return (
        f"{row.file.name}: this ComfyUI cannot add its {kind.upper()} weights in half precision, as dynamic VRAM asks "
        "for: they have no effect; start ComfyUI with --disable-dynamic-vram"
    )


def _output(
    model: Any,
    clip: Any,
    stack: list[tuple[str, float, float]],
    rows: Sequence[RowReport],
    notes: Sequence[str],
    math: StackMath,
) -> io.NodeOutput:
    # One text: the host counts objects here as results of the job, and shows `text` among its pictures.
    ui = {REPORT_KEY: [json.dumps(as_json(rows, notes))]}
    return io.NodeOutput(model, clip, stack, render(rows, notes, math), ui=ui)


def _tuples(runtime: Runtime, stack: LoraStack, leased: Sequence[LeasedRow]) -> list[tuple[str, float, float]]:
    """The active rows under the names of their files. What has no clip here is among them: a later loader may have."""
    names = {one.row: one.file.name for one in leased}
    return [
        (names.get(row) or runtime.catalog.find(row.name, row.category).name, row.strength_model, row.strength_clip)
        for row in stack.active
    ]


def _lease(runtime: Runtime, rows: Sequence[LoraRow]) -> tuple[LeasedRow, ...]:
    bar = comfy.utils.ProgressBar(len(rows))

    def on_row() -> None:
        bar.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()

    try:
        return lease_rows(
            rows,
            lambda row: runtime.catalog.find(row.name, row.category),
            runtime.cache,
            comfy.model_management.processing_interrupted,
            on_row,
        )
    except AdapterLoadCancelledError:
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise


def _reports(rows: Sequence[LeasedRow], applied: AppliedStack, *, clip_given: bool) -> list[RowReport]:
    reports = [
        RowReport(
            name=leased.file.name,
            strength_model=leased.row.strength_model,
            strength_clip=leased.row.strength_clip,
            base_model=leased.file.base_model,
            outcome=leased.lease.outcome,
            wait_s=leased.lease.wait_s,
            match=match,
            clip_given=clip_given,
        )
        for leased, match in zip(rows, applied.matches, strict=True)
    ]
    for warning in filter(None, map(wrong_model, reports)):
        logger.warning("WarmStack: %s", warning)
    return reports
