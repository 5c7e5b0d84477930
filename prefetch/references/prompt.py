"""references: the LoRAs and the models that one queued graph will load, read from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..queue.job import LoraReference, ModelReference, References, UnknownReference
from .fallback import Generic
from .graph import is_link, ordered_nodes
from .model_recognisers import MODEL_INPUTS, named_models
from .recognisers import PLAIN_CLASSES, RECOGNISERS
from .stack_readers import LOADER, STACK_INPUT, loaded_rows

_GENERIC = (Generic(),)
_NAMELESS = PLAIN_CLASSES - MODEL_INPUTS.keys()


def references(prompt: Mapping[str, object], outputs: Sequence[str] | None = None) -> References:
    """Every LoRA and model that `prompt` names on the way to `outputs` (all nodes when None), in an order in which
    nodes can run.

    Total: a broken prompt gives what can be read of it. Names are as written; rows that are off or of strength zero
    are left out.
    """
    loras: list[LoraReference] = []
    unknown: list[UnknownReference] = []
    models: list[ModelReference] = []
    ours: list[str] = []
    for node in ordered_nodes(prompt, outputs, _NAMELESS):
        if node.class_type == LOADER and is_link(stack := node.inputs.get(STACK_INPUT)):
            ours.append(stack[0])
        if node.class_type in MODEL_INPUTS:
            models += named_models(node)
        if node.class_type in PLAIN_CLASSES:
            continue
        for shape in RECOGNISERS.get(node.class_type, _GENERIC):
            for found in shape.read(node):
                if isinstance(found, LoraReference):
                    loras.append(found)
                else:
                    unknown.append(found)
    loras = loaded_rows(prompt, loras)
    if ours:
        # Our loader acquires adapters on behalf of the stack nodes before it, whatever pack those are of.
        before = {node.node_id for node in ordered_nodes(prompt, ours)}
        loras = [replace(lora, via_cache=True) if lora.node_id in before else lora for lora in loras]
    return References(tuple(loras), tuple(unknown), tuple(models))


def payload_references(payload: object) -> References:
    """`references` for a job's payload: a prompt, or a pair `(prompt, outputs)`."""
    prompt, outputs = payload if isinstance(payload, tuple) and len(payload) == 2 else (payload, None)
    if not isinstance(prompt, dict):
        return References()
    return references(prompt, outputs if isinstance(outputs, list | tuple) else None)
