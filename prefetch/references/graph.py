"""Reading a queued graph: links followed to the literal behind them, nodes in the order in which they can run."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

MAX_HOPS = 32
"""Longest chain of value nodes that is followed; a longer one is a cycle or a joke."""

LITERAL_INPUTS: Mapping[str, str] = {
    "PrimitiveString": "value",
    "PrimitiveStringMultiline": "value",
    "PrimitiveInt": "value",
    "PrimitiveFloat": "value",
    "PrimitiveBoolean": "value",
    "PrimitiveNode": "value",
    "Reroute": "",
    "easy loraNames": "lora_name",
    "easy ckptNames": "ckpt_name",
    "easy controlnetNames": "controlnet_name",
    "easy string": "value",
    "easy int": "value",
    "easy float": "value",
    "easy boolean": "value",
    "StringConstant": "string",
    "StringConstantMultiline": "string",
    "INTConstant": "value",
    "FloatConstant": "value",
    "BOOLConstant": "value",
    "String Literal": "string",
    "Int Literal": "int",
    "Float Literal": "float",
    "Text Multiline": "text",
    "CR Text": "text",
    "CR Prompt Text": "prompt",
    "ttN text": "text",
    "ShowText|pysssss": "text",
    "Primitive string [Crystools]": "string",
    "Primitive string multiline [Crystools]": "string",
    "Primitive integer [Crystools]": "int",
    "Primitive float [Crystools]": "float",
    "Primitive boolean [Crystools]": "boolean",
}
"""Node classes that hand one input through unchanged -> that input. Adding one is a row here."""

LAZY_SWITCHES: Mapping[str, tuple[str, str, str]] = {
    "ComfySwitchNode": ("switch", "on_false", "on_true"),
    "LazySwitchKJ": ("switch", "on_false", "on_true"),
}
"""Node classes that run only one of two branches -> the switch, the branch when it is off, the branch when it is on."""


_NUMBERS = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class Computed:
    """A value that exists only once the graph runs. `source` is the class of the node that computes it."""

    source: str


class Node(NamedTuple):
    """One well-formed node of `prompt`."""

    node_id: str
    class_type: str
    inputs: Mapping[str, object]
    prompt: Mapping[str, object]

    def value(self, key: str) -> object:
        """The literal of input `key`, links followed; None when absent, `Computed` when only a run can tell."""
        value = self.inputs.get(key)
        return value if isinstance(value, str) else follow(self.prompt, value)


def is_link(value: object) -> TypeGuard[list[Any]]:
    """The host's own test: `["12", 0]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) in _NUMBERS


def follow(prompt: Mapping[str, object], value: object) -> object:
    """`value`, or what the chain of value nodes behind its link says."""
    for _ in range(MAX_HOPS):
        if not is_link(value):
            return _unwrapped(value)
        node = node_of(prompt, value[0])
        if node is None:
            return Computed("a missing node")
        if node.class_type not in LITERAL_INPUTS:
            return Computed(node.class_type)
        value = node.inputs.get(LITERAL_INPUTS[node.class_type])
    return Computed("a cycle")


def node_of(prompt: Mapping[str, object], node_id: str) -> Node | None:
    """Node `node_id`, or None when it is absent or malformed."""
    raw = prompt.get(node_id)
    if not isinstance(raw, dict):
        return None
    class_type, inputs = raw.get("class_type"), raw.get("inputs")
    if not isinstance(class_type, str) or not isinstance(inputs, dict):
        return None
    return Node(node_id, class_type, inputs, prompt)


def ordered_nodes(
    prompt: Mapping[str, object], outputs: Sequence[str] | None, passed_over: Container[str] = ()
) -> Iterator[Node]:
    """Nodes that `outputs` need (all when None), each after the nodes it depends on. A cycle is cut, never followed.

    Classes in `passed_over` are walked through but not given: most nodes of a graph name nothing.
    """
    roots = list(prompt) if outputs is None else [node_id for node_id in outputs if isinstance(node_id, str)]
    seen: set[str] = set()
    stack: list[str | Node] = [*reversed(roots)]
    while stack:
        item = stack.pop()
        if isinstance(item, Node):
            yield item
        elif item not in seen:
            seen.add(item)
            # What `node_of` does, written out: this is asked of every node of every job.
            raw = prompt.get(item)
            if not isinstance(raw, dict):
                continue
            class_type, inputs = raw.get("class_type"), raw.get("inputs")
            if not isinstance(class_type, str) or not isinstance(inputs, dict):
                continue
            if class_type not in passed_over:
                stack.append(Node(item, class_type, inputs, prompt))
            skipped = _skipped_branch(Node(item, class_type, inputs, prompt)) if class_type in LAZY_SWITCHES else None
            below = len(stack)
            for key, value in inputs.items():
                if type(value) is list and is_link(value) and key != skipped:
                    stack.insert(below, value[0])


def _skipped_branch(node: Node) -> str | None:
    """The branch that the host will not run, None when only a run can tell."""
    switch, when_off, when_on = LAZY_SWITCHES[node.class_type]
    value = node.value(switch)
    if not isinstance(value, bool):
        return None
    return when_off if value else when_on


def _unwrapped(value: object) -> object:
    """The front end wraps list values as `{"__value__": [...]}` so that they are not taken for links."""
    if isinstance(value, dict) and len(value) == 1 and "__value__" in value:
        return value["__value__"]
    return value
