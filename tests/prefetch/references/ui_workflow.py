"""A workflow file as the front end saves it -> the prompt that it would queue (API form).

Subgraphs are expanded, muted and bypassed nodes are gone, reroutes and primitives are resolved, promoted widgets carry
the value that the outermost node shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

Json = dict[str, Any]
Widgets = Mapping[str, Sequence[str]]
"""Class -> its widgets, in the order of `widgets_values`; "" for one that exists only in the browser."""

MUTED, BYPASSED = 2, 4
BROWSER_ONLY = frozenset({"MarkdownNote", "Note", "PrimitiveNode", "Reroute"})
_INPUTS, _OUTPUTS = -10, -20
"""Ids of the two ends of a subgraph in its own links."""


class Link(NamedTuple):
    origin_id: Any
    origin_slot: int
    target_id: Any
    target_slot: int


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a node that is queued."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class Graph:
    """The workflow itself, or one subgraph as it stands in one place of it."""

    raw: Json
    definitions: Mapping[str, Json]
    host: Json | None = None
    """The node that shows this subgraph in `parent`."""
    parent: Graph | None = None
    prefix: str = ""

    @cached_property
    def nodes(self) -> dict[Any, Json]:
        return {node["id"]: node for node in self.raw["nodes"]}

    @cached_property
    def links(self) -> dict[Any, Link]:
        return dict(map(_link, self.raw.get("links", [])))

    @cached_property
    def promoted(self) -> dict[str, Any]:
        """Name of an input of this subgraph -> the value that its host shows in place of the inner widget."""
        values = (self.host or {}).get("widgets_values") or []
        names = filter(self._ends_in_widget, (slot["name"] for slot in self.raw["inputs"]))
        return dict(zip(names, values, strict=False))

    def inner(self, node: Json) -> Graph | None:
        """The subgraph that `node` stands for."""
        raw = self.definitions.get(node["type"])
        return raw and Graph(raw, self.definitions, node, self, f"{self.prefix}{node['id']}:")

    def source(self, node: Json, index: int) -> Literal | Output | None:
        """What feeds input `index` of `node`; None when nothing does."""
        link = self.links.get(node["inputs"][index].get("link"))
        return self._origin(link, node["inputs"][index]["type"]) if link else None

    def _origin(self, link: Link, type_name: str) -> Literal | Output | None:
        if link.origin_id == _INPUTS:
            return self._from_host(link.origin_slot)
        node = self.nodes.get(link.origin_id)
        if node is None or node["mode"] == MUTED:
            return None
        if node["mode"] == BYPASSED:
            index = _bypass(node, link.origin_slot, type_name)
            return None if index is None else self.source(node, index)
        if node["type"] == "PrimitiveNode":
            return Literal(node["widgets_values"][0])
        if node["type"] == "Reroute":
            return self.source(node, 0)
        inner = self.inner(node)
        if inner is None:
            return Output(f"{self.prefix}{node['id']}", link.origin_slot)
        return inner._output(link.origin_slot, type_name)

    def _output(self, slot: int, type_name: str) -> Literal | Output | None:
        links = (link for link in self.links.values() if (link.target_id, link.target_slot) == (_OUTPUTS, slot))
        return next((self._origin(link, type_name) for link in links), None)

    def _from_host(self, slot: int) -> Literal | Output | None:
        assert self.host is not None and self.parent is not None
        name = self.raw["inputs"][slot]["name"]
        index = next((i for i, entry in enumerate(self.host["inputs"]) if entry["name"] == name), None)
        source = None if index is None else self.parent.source(self.host, index)
        if source is None and name in self.promoted:
            return Literal(self.promoted[name])
        return source

    def _ends_in_widget(self, name: str) -> bool:
        slot = next(i for i, entry in enumerate(self.raw["inputs"]) if entry["name"] == name)
        ends = (link for link in self.links.values() if (link.origin_id, link.origin_slot) == (_INPUTS, slot))
        return any(self.nodes[end.target_id]["inputs"][end.target_slot].get("widget") for end in ends)


def api_prompt(workflow: Json, widgets: Widgets) -> dict[str, Json]:
    """The prompt that the front end posts. Classes that `widgets` lacks keep their links and lose their widgets."""
    definitions = {raw["id"]: raw for raw in (workflow.get("definitions") or {}).get("subgraphs", [])}
    return dict(_queued(Graph(workflow, definitions), widgets))


def _queued(graph: Graph, widgets: Widgets) -> Iterator[tuple[str, Json]]:
    for node in graph.raw["nodes"]:
        if node["mode"] in (MUTED, BYPASSED) or node["type"] in BROWSER_ONLY:
            continue
        inner = graph.inner(node)
        if inner is not None:
            yield from _queued(inner, widgets)
            continue
        inputs = dict(zip(widgets.get(node["type"], ()), node.get("widgets_values") or (), strict=False))
        inputs.pop("", None)
        for index, entry in enumerate(node.get("inputs") or ()):
            source = graph.source(node, index)
            if source is not None:
                inputs[entry["name"]] = source.value if isinstance(source, Literal) else [source.node_id, source.slot]
        yield f"{graph.prefix}{node['id']}", {"class_type": node["type"], "inputs": inputs}


def _bypass(node: Json, slot: int, type_name: str) -> int | None:
    """The input that stands in for output `slot`: the one beside it if its type fits, else the first that fits."""
    types = [entry["type"] for entry in node.get("inputs") or ()]
    if slot < len(types) and types[slot] == node["outputs"][slot]["type"]:
        return slot
    return types.index(type_name) if type_name in types else None


def _link(raw: Json | list[Any]) -> tuple[Any, Link]:
    if isinstance(raw, dict):
        return raw["id"], Link(raw["origin_id"], raw["origin_slot"], raw["target_id"], raw["target_slot"])
    return raw[0], Link(*raw[1:5])
