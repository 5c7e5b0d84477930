"""The example workflows on a real host: listed, served, and each of them makes its pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostkit.client import HostClient
from hostkit.graphs import CHECKPOINT
from hostkit.server import PACK_FOLDER

from ..nodes.example_nodes import STOCK, Declared, ours
from ..prefetch.references.ui_workflow import api_prompt

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "example_workflows").glob("*.json"))
RUNNABLE = [path for path in FILES if path.stem != "with_rgthree"]
"""That one needs another pack: `tests/web/test_rgthree_on_comfyui.py` runs it."""

SMALL: dict[str, dict[str, object]] = {
    "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 1, "cfg": 1.0},
}
"""The tiny model in place of SDXL."""

_WIDGET_TYPES = frozenset({"BOOLEAN", "COMBO", "FLOAT", "INT", "STRING"})


def small(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        node_id: {**node, "inputs": {**node["inputs"], **SMALL.get(node["class_type"], {})}}
        for node_id, node in prompt.items()
    }


def pictures(client: HostClient, prompt: dict[str, dict[str, Any]]) -> int:
    (finished,) = client.run(small(prompt))
    assert finished.status == "success", finished.messages
    return len(finished.output("images"))


def test_all_are_listed_and_served_with_their_pictures(client: HostClient) -> None:
    assert sorted(client.get("/workflow_templates")[PACK_FOLDER]) == [path.stem for path in FILES]
    for path in FILES:
        served = client.get(f"/api/workflow_templates/{PACK_FOLDER}/{path.name}")
        assert served == json.loads(path.read_text(encoding="utf-8"))
        assert client.get(f"/api/workflow_templates/{PACK_FOLDER}/{path.stem}.jpg")


@pytest.mark.parametrize("name", sorted(STOCK | ours()))
def test_what_the_checks_without_a_host_believe_is_true(client: HostClient, name: str) -> None:
    info = client.get(f"/object_info/{name}")[name]
    inputs = {key: spec[0] for part in ("required", "optional") for key, spec in info["input"].get(part, {}).items()}
    widgets = tuple(key for key, kind in inputs.items() if isinstance(kind, list) or kind in _WIDGET_TYPES)
    declared = (STOCK | ours())[name]
    listed = declared._replace(widgets=tuple(filter(None, declared.widgets)))
    assert listed == Declared(frozenset(inputs) - set(widgets), widgets, tuple(info["output"]))


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_every_example_makes_its_pictures(client: HostClient, path: Path) -> None:
    widgets = {name: declared.widgets for name, declared in (STOCK | ours()).items()}
    prompt = api_prompt(json.loads(path.read_text(encoding="utf-8")), widgets)
    styles = [name for name in client.get("/models/loras") if name.startswith("styles/")]
    assert len(styles) > 1
    assert pictures(client, prompt) == (len(styles) if path.stem == "category_sweep" else 1)


def test_the_prompt_for_programs_is_one_that_the_host_takes(client: HostClient) -> None:
    prompt = json.loads((ROOT / "docs" / "examples" / "lora_request_prompt.json").read_text(encoding="utf-8"))
    assert pictures(client, prompt) == 1
