"""What an artist sees: the LoRAs that the lora widgets of a workflow file name, on nodes that a run would reach.

Written without the converter of `ui_workflow`: it walks slots backwards through the saved file and queues nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]
Path = tuple[int, ...]
"""Ids of the nodes whose subgraphs one has to open, outermost first."""

LORA_WIDGETS = {
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
}
_LINK = ("origin_id", "origin_slot", "target_id", "target_slot")
_VALUES = re.compile(r"Primitive\w*")
_ENDS = re.compile(r"(Save|Preview)\w+|\w+Preview|ImageCompare")


class Slot(NamedTuple):
    path: Path
    node_id: int
    side: str
    index: int


class Walk:
    """The whole workflow as slots; `back[slot]` are the slots that feed it."""

    def __init__(self, workflow: Json) -> None:
        self.nodes: dict[tuple[Path, int], Json] = {}
        self.back: dict[Slot, list[Slot]] = {}
        self._subgraphs = {raw["id"]: raw for raw in (workflow.get("definitions") or {}).get("subgraphs", [])}
        self._add((), workflow)

    def loras(self) -> Counter[tuple[Any, ...]]:
        """(name, *strengths) -> how many loaders show it; strength zero is not counted."""
        widgets = (self._shown_row(*key) for key in self._reached() if self.nodes[key]["type"] in LORA_WIDGETS)
        return Counter(row for row in widgets if any(row[1:]))

    def values(self, widgets: Mapping[str, Sequence[str]]) -> Counter[tuple[str, str, Any]]:
        """(class, widget, value) of every active node of the classes `widgets` -> how often it is shown, whether a run
        reaches it or not; `widgets` names those of each class in their saved order."""
        return Counter(
            (node["type"], name, self._shown(path, node, name, own))
            for (path, _), node in self.nodes.items()
            if node["mode"] == 0 and node["type"] in widgets
            for name, own in zip(widgets[node["type"]], node["widgets_values"], strict=False)
        )

    def _add(self, path: Path, graph: Json) -> None:
        for raw in graph["links"]:
            origin, out, target, into = (raw[key] for key in _LINK) if isinstance(raw, dict) else raw[1:5]
            self.back.setdefault(Slot(path, target, "in", into), []).append(Slot(path, origin, "out", out))
        for node in graph["nodes"]:
            self.nodes[path, node["id"]] = node
            if self._is_open(node):
                self._open(path, node, self._subgraphs[node["type"]])

    def _is_open(self, node: Json) -> bool:
        return node["type"] in self._subgraphs and node["mode"] == 0

    def _open(self, path: Path, node: Json, graph: Json) -> None:
        inside = (*path, node["id"])
        self._add(inside, graph)
        for index in range(len(graph["outputs"])):
            self.back[Slot(path, node["id"], "out", index)] = [Slot(inside, -20, "in", index)]
        places = {entry["name"]: i for i, entry in enumerate(node["inputs"])}
        for index, entry in enumerate(graph["inputs"]):
            if entry["name"] in places:
                self.back[Slot(inside, -10, "out", index)] = [Slot(path, node["id"], "in", places[entry["name"]])]

    def _reached(self) -> set[tuple[Path, int]]:
        """Every active node on the way to an output node."""
        ends = [key for key, node in self.nodes.items() if node["mode"] == 0 and _ENDS.fullmatch(node["type"])]
        reached, todo = set(ends), [slot for key in ends for slot in self._feeding(*key, None)]
        seen: set[Slot] = set()
        while todo:
            slot = todo.pop()
            if slot in seen:
                continue
            seen.add(slot)
            node = self.nodes.get((slot.path, slot.node_id))
            if slot.side == "out" and node is not None and not self._is_open(node):
                todo += self._feeding(slot.path, slot.node_id, slot.index)
                if node["mode"] == 0:
                    reached.add((slot.path, slot.node_id))
            todo += self.back.get(slot, [])
        return reached

    def _feeding(self, path: Path, node_id: int, output: int | None) -> Iterator[Slot]:
        """Input slots that `output` of an active or bypassed node depends on."""
        node = self.nodes[path, node_id]
        for index, entry in enumerate(node.get("inputs") or ()):
            passes = node["mode"] == 0 and not self._is_off(path, node, entry["name"])
            bypassed = node["mode"] == 4 and output is not None and entry["type"] == node["outputs"][output]["type"]
            if passes or bypassed:
                yield Slot(path, node_id, "in", index)

    def _is_off(self, path: Path, node: Json, name: str) -> bool:
        if node["type"] != "ComfySwitchNode" or name == "switch":
            return False
        shown = self._shown(path, node, "switch", (node["widgets_values"] or [None])[0])
        return isinstance(shown, bool) and name == ("on_false" if shown else "on_true")

    def _shown_row(self, path: Path, node_id: int) -> tuple[Any, ...]:
        node = self.nodes[path, node_id]
        names = LORA_WIDGETS[node["type"]]
        return tuple(self._shown(path, node, *pair) for pair in zip(names, node["widgets_values"], strict=True))

    def _shown(self, path: Path, node: Json, name: str, own: Any) -> Any:
        """The value of widget `name`: of the outermost node that shows it; None when a run computes it."""
        entry = next((i for i in node["inputs"] if i["name"] == name and i.get("link") is not None), None)
        if entry is None:
            return own
        (origin,) = self.back[Slot(path, node["id"], "in", node["inputs"].index(entry))]
        source = self.nodes.get((path, origin.node_id))
        if origin.node_id != -10:
            assert source is not None
            if source["type"] == "Reroute":
                return self._shown(path, source, source["inputs"][0]["name"], None)
            is_value = _VALUES.fullmatch(source["type"])
            return self._shown(path, source, "value", source["widgets_values"][0]) if is_value else None
        host = self.nodes[path[:-1], path[-1]]
        graph = self._subgraphs[host["type"]]
        promoted = [i for i, entry in enumerate(graph["inputs"]) if self._is_widget(path, i)]
        values = dict(zip(promoted, host["widgets_values"] or [], strict=False)) if origin.index in promoted else {}
        outer = values.get(origin.index, own)
        return self._shown(path[:-1], host, graph["inputs"][origin.index]["name"], outer)

    def _is_widget(self, path: Path, index: int) -> bool:
        fed = (s for s, origins in self.back.items() if Slot(path, -10, "out", index) in origins)
        return any("widget" in self.nodes[s.path, s.node_id]["inputs"][s.index] for s in fed)
