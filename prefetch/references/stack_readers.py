"""What becomes of the rows that our nodes write: who reads a stack, and which of its rows nobody loads."""

from __future__ import annotations

from collections.abc import Mapping

from ..queue.job import LoraReference
from .graph import Node, node_of, takers

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
    silent = {node_id for node_id in doubtful if (node := node_of(prompt, node_id)) and _feeds_models_alone(node)}
    return [row for row in rows if row.strength_model != 0 or row.node_id not in silent] if silent else rows


def _feeds_models_alone(node: Node) -> bool:
    """Whether a loader gets the stack, directly or from one to the next, and all that do are ours and have no clip."""
    todo, seen, is_loaded = [node], set[str](), False
    while todo:
        one = todo.pop()
        if one.node_id in seen:
            continue
        seen.add(one.node_id)
        if one.class_type == LOADER and "clip" in one.inputs:
            return False
        is_loaded |= one.class_type == LOADER
        for reader, key in takers(one, _STACK_OUTPUTS[one.class_type]):
            if key != STACK_INPUT or reader.class_type not in _PASSES_ON:
                return False
            todo.append(reader)
    return is_loaded
