"""Names that reach a loader over a link: what the host keeps of a run is good as long as the files are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hostkit.client import Finished, HostClient, Prompt
from hostkit.graphs import UNET, digest_graph, flux_graph
from hostkit.models import lora_path
from hostkit.tiny_lora import write_flux_lora
from safetensors.torch import load_file, save_file

NAME = "linked/one.safetensors"


def _text(value: str) -> dict[str, Any]:
    return {"class_type": "PrimitiveStringMultiline", "inputs": {"value": value}}


def _node(class_type: str, /, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


WIRINGS: dict[str, tuple[dict[str, dict[str, Any]], Mapping[str, object]]] = {
    # how the name comes -> (the nodes before the loader, what the loader is given)
    "names of the catalog": (
        {"names": _node("WarmStackLoraCatalog", category="", base_model="", pattern="linked/*")},
        {"loras": ["names", 0]},
    ),
    "text of another node": ({"text": _text(json.dumps([NAME]))}, {"loras": ["text", 0]}),
    "tags of another node": (
        {"text": _text("<lora:linked/one:1>"), "tags": _node("WarmStackLoraTags", text=["text", 0])},
        {"loras": "", "lora_stack": ["tags", 1]},
    ),
    "request of another node": (
        {
            "text": _text(json.dumps({"models": ["linked/one"]})),
            "request": _node("WarmStackLoraRequest", request=["text", 0]),
        },
        {"loras": "", "lora_stack": ["request", 0]},
    ),
    "stack of another node, written down by text": (
        {"text": _text(NAME), "before": _node("WarmStackLoraStack", loras=["text", 0])},
        {"loras": "", "lora_stack": ["before", 0]},
    ),
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_run_is_kept_until_the_file_is_replaced(client: HostClient, host_base: Path, wiring: str) -> None:
    path = lora_path(host_base, NAME)
    graph = _graph(*WIRINGS[wiring])
    digests = []
    for seed in (1, 2):
        write_flux_lora(path, seed=seed)
        for is_kept in (False, True):
            (run,) = client.run(graph)
            assert run.status == "success", run.messages
            assert ({"stack", "digest"} <= _kept(run)) == is_kept, (seed, is_kept, _kept(run))
            digests.append(run.output("model"))
    path.unlink()
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_a_model_is_kept_through_a_download_and_not_when_it_is_replaced(client: HostClient, host_base: Path) -> None:
    folder = host_base / "models/diffusion_models"
    weights = load_file(folder / UNET)
    link = {
        "text": _text("linked.safetensors"),
        # Of what fits any input the host lets a link choose a file too.
        "any": _node("ComfySwitchNode", switch=True, on_true=["text", 0], on_false=["text", 0]),
        "unet": _node("WarmStackLoadDiffusionModel", unet_name=["any", 0]),
    }
    runs = {}
    for step, scale in (("first", 1.0), ("during a download", 0.0), ("replaced", 0.5)):
        if scale:
            save_file({key: tensor * scale for key, tensor in weights.items()}, folder / "next")
            (folder / "next").replace(folder / "linked.safetensors")
        else:
            (folder / "download.safetensors").write_bytes(b"more to come")
        (run,) = client.run(digest_graph(flux_graph(), clip=False) | link)
        assert run.status == "success", run.messages
        runs[step] = ({"unet", "digest"} <= _kept(run), run.output("model"))
    for name in ("linked.safetensors", "download.safetensors"):
        (folder / name).unlink()
    assert [is_kept for is_kept, _ in runs.values()] == [False, True, False]
    assert runs["first"][1] == runs["during a download"][1] != runs["replaced"][1]


def _graph(nodes: Mapping[str, dict[str, Any]], loader_inputs: Mapping[str, object]) -> Prompt:
    graph = digest_graph(flux_graph([(NAME, 1.0, 0.0)], loader="stack"), clip=False)
    graph["stack"]["inputs"] |= loader_inputs
    return graph | nodes


def _kept(run: Finished) -> set[str]:
    """The nodes that the host did not run again."""
    return {node for name, detail in run.messages if name == "execution_cached" for node in detail["nodes"]}
