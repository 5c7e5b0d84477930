"""What becomes of the rows that our nodes write: who reads a stack, and which of its rows nobody loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..queue.job import LoraReference
from .graph import is_link, node_of

LOADER = "WarmStackLoadLoraStack"
STACK_INPUT = "lora_stack"
"""Of the loader and of `WarmStackLoraStack`: the stack of the node before, whatever pack that is of."""
_STACK_OUTPUTS: Mapping[str, int] = {
    LOADER: 2,
    "WarmStackLoraStack": 0,
    "WarmStackLoraRequest": 0,
    "WarmStackLoraTags": 1,
}
_PASSES_ON = frozenset({LOADER, "WarmStackLoraStack"})


def loaded_rows(prompt: Mapping[str, object], rows: list[LoraReference]) -> list[LoraReference]:
    """`rows` without those of our stacks that nobody loads: a loader without a clip leaves model strength 0 out."""
    doubtful = {row.node_id for row in rows if row.strength_model == 0 and row.class_type in _STACK_OUTPUTS}
    silent = doubtful & _for_models_alone(prompt) if doubtful else doubtful
    return [row for row in rows if row.strength_model != 0 or row.node_id not in silent] if silent else rows


def _for_models_alone(prompt: Mapping[str, object]) -> set[str]:
    """Nodes whose stack a loader gets, directly or from one to the next, where all that do are ours and have no clip.

    The graph is gone through once for all of them: it may be a chain of any length.
    """
    loaders: list[str] = []
    loaded_whole: list[str] = []
    before: dict[str, str] = {}
    for node in filter(None, (node_of(prompt, node_id) for node_id in prompt)):
        if node.class_type == LOADER:
            (loaded_whole if "clip" in node.inputs else loaders).append(node.node_id)
        for key, value in node.inputs.items():
            if not is_link(value) or (source := node_of(prompt, value[0])) is None:
                continue
            if value[1] != _STACK_OUTPUTS.get(source.class_type):
                continue
            if key == STACK_INPUT and node.class_type in _PASSES_ON:
                before[node.node_id] = source.node_id
            else:
                loaded_whole.append(source.node_id)
    return _with_all_before(loaders, before) - _with_all_before(loaded_whole, before)


def _with_all_before(node_ids: Iterable[str], before: Mapping[str, str]) -> set[str]:
    seen: set[str] = set()
    for start in node_ids:
        at: str | None = start
        while at is not None and at not in seen:
            seen.add(at)
            at = before.get(at)
    return seen
