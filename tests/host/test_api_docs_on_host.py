"""docs/api.md against a real ComfyUI: what it shows is answered has the fields that it shows, and its client runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from hostkit.client import HostClient
from hostkit.graphs import CHECKPOINT, sd15_graph

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `((?:GET|POST) /\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
QUERIES = {
    "GET /status": "",
    "GET /adapters": "?category=styles&sort=-size&limit=100",
    "GET /base_model": f"?kind=checkpoints&name={CHECKPOINT}",
}
SOMETIMES = {".loads.fast_single_file", ".evictions.demand", ".results[].bytes"}
"""Named after what was loaded and why something had to go; told of what was in memory."""

PLACES = {"stack": "10", "sampler": "3"}
"""The ids that the client takes the nodes to have."""


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "GET /metrics"])
def test_the_answer_has_the_fields_that_the_page_shows(client: HostClient, name: str) -> None:
    method, route = name.split()
    shown = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", SECTIONS[name], re.DOTALL)]
    path = f"/warmstack/v1{route}"
    answer = client.get(path + QUERIES[name]) if method == "GET" else client.post(path, shown[0])
    assert set(invented(shown[-1], answer)) <= SOMETIMES


def test_the_metrics_that_the_page_shows_are_answered(client: HostClient) -> None:
    with urllib.request.urlopen(f"{client.url}/warmstack/v1/metrics") as answer:
        told = answer.read().decode()
    section = SECTIONS["GET /metrics"]
    assert set(re.findall(r"warmstack_\w+", section)) <= set(re.findall(r"warmstack_\w+", told))
    (excerpt,) = re.findall(r"```text\n(.+?)```", section, re.DOTALL)
    assert [line for line in excerpt.splitlines() if re.sub(r" \d+$", "", line) not in told] == []


def test_the_page_has_every_node_with_its_inputs(client: HostClient) -> None:
    table = dict(re.findall(r"^\| `(WarmStack\w+)` \| (.*?) ?\|", PAGE, re.MULTILINE))
    nodes = {name: node["input"] for name, node in client.get("/object_info").items() if name.startswith("WarmStack")}
    assert table.keys() == nodes.keys()
    for name, inputs in nodes.items():
        required, optional = (set(re.findall(r"`(\w+)`", part)) for part in table[name].partition("optional")[::2])
        assert inputs.get("required", {}).keys() == required, name
        assert inputs.get("optional", {}).keys() <= optional, name


def test_the_client_queues_a_batch_and_reads_what_was_hidden(client: HostClient, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", PAGE.partition("## A client")[2], re.DOTALL)
    graph = json.dumps(sd15_graph([("styles/ink.safetensors", 1.0, 1.0)], loader="stack", tag="client"))
    for place, number in PLACES.items():
        graph = graph.replace(f'"{place}"', f'"{number}"')
    (tmp_path / "workflow_api.json").write_text(graph, "utf-8")
    before = len(client.get("/history"))
    (tmp_path / "client.py").write_text(code.replace("http://127.0.0.1:8188", client.url), "utf-8")
    told = subprocess.run([sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert told.returncode == 0, told.stderr
    assert re.fullmatch(r"[\d.]+% of [\d.]+ s of loading was hidden; [\d.]+ s was waited for\n", told.stdout)
    styles = client.get("/warmstack/v1/adapters?category=styles")["total"]
    assert len(client.get("/history")) - before == styles > 1


def invented(shown: object, real: object, at: str = "") -> list[str]:
    """Paths of keys that the page shows and the answer lacks; of lists, the first items are compared."""
    if isinstance(shown, Mapping) and isinstance(real, Mapping):
        missing = [f"{at}.{key}" for key in shown if key not in real]
        return missing + [
            path for key in shown if key in real for path in invented(shown[key], real[key], f"{at}.{key}")
        ]
    if isinstance(shown, list) and isinstance(real, list) and shown and real:
        return invented(shown[0], real[0], f"{at}[]")
    return []
