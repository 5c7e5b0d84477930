"""A stack amid what else graphs are made of: what it gives is bit for bit what chained stock loaders give there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hostkit.client import HostClient, Prompt
from hostkit.graphs import Link, Row, digest_graph, flux_graph, sd15_graph

FLUX: list[Row] = [
    ("flux/native0.safetensors", 0.8, 0.0), ("flux/diffusers0.safetensors", -0.5, 0.0),
    ("flux/native1.safetensors", 1.0, 0.0),
]  # fmt: skip
SD15: list[Row] = [("styles/oil.safetensors", 0.8, 0.6), ("characters/mira.safetensors", 1.0, 0.0)]
UNET: Link = ["unet", 0]


def _node(class_type: str, /, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}


def _loaded(loader: str) -> tuple[Prompt, Link]:
    """The loaders of `FLUX`, and where the model comes out of them."""
    prompt = digest_graph(flux_graph(FLUX, loader=loader), clip=False)
    return prompt, prompt.pop("digest")["inputs"]["model"]


def _in_a_subgraph(loader: str) -> Prompt:
    """Its nodes have the ids of their instances before their own."""
    prompt, (last, _) = _loaded(loader)
    text = json.dumps(prompt)
    for node_id in prompt:
        text = text.replace(f'"{node_id}"', f'"12:3:{node_id}"')
    inside: Prompt = json.loads(text)
    return inside | {"digest": _node("TestModelDigest", model=[f"12:3:{last}", 0])}


def _expanded(loader: str) -> Prompt:
    """The loaders come out of a node while it runs, as in a loop."""
    prompt, _ = _loaded(loader)
    expand = _node("TestExpand", model=UNET, nodes=json.dumps([prompt[key] for key in prompt if key != "unet"]))
    return {"unet": prompt["unet"], "expand": expand, "digest": _node("TestModelDigest", model=["expand", 0])}


def _merged(loader: str) -> Prompt:
    prompt, model = _loaded(loader)
    prompt["half"] = _node("ModelMergeSimple", model1=model, model2=UNET, ratio=0.3)
    prompt["after"] = _node("LoraLoaderModelOnly", model=["half", 0], lora_name=FLUX[0][0], strength_model=0.4)
    prompt["twice"] = _node("ModelMergeAdd", model1=["after", 0], model2=model)
    return prompt | {"digest": _node("TestModelDigest", model=["twice", 0])}


def _hooked(loader: str) -> Prompt:
    """One more LoRA comes with the conditioning alone."""
    prompt = sd15_graph(SD15, loader=loader)
    clip = prompt["cond"]["inputs"]["clip"]
    prompt["hook"] = _node("CreateHookLora", lora_name="styles/ldm.safetensors", strength_model=0.7, strength_clip=0.5)
    prompt["hooked"] = _node("SetClipHooks", clip=clip, hooks=["hook", 0], apply_to_conds=True, schedule_clip=False)
    prompt["with"] = _node("CLIPTextEncode", text="a fox", clip=["hooked", 0])
    prompt["sampler"]["inputs"] |= {"positive": ["with", 0], "cfg": 2.0}
    return prompt


@pytest.mark.parametrize("around", [_in_a_subgraph, _expanded, _merged, _hooked])
def test_it_gives_what_chained_loaders_give(client: HostClient, around: Callable[[str], Prompt]) -> None:
    jobs = client.run(around("stock"), around("stack"))
    assert [job.status for job in jobs] == ["success", "success"], [job.messages[-1] for job in jobs]
    stock, stack = (job.output("digest" if around is _hooked else "model") for job in jobs)
    assert stock == stack


def test_a_list_of_names_runs_it_once_for_each(client: HostClient) -> None:
    names = [f"flux/native{number}.safetensors" for number in range(6)]
    swept: Prompt = {
        "unet": flux_graph()["unet"],
        "names": _node("WarmStackLoraCatalog", pattern="flux/native*"),
        "stack": _node("WarmStackLoadLoraStack", model=UNET, loras=["names", 0], math="exact"),
        "digest": _node("TestModelDigest", model=["stack", 0]),
    }
    sweep, *alone = client.run(swept, *(digest_graph(flux_graph([(name, 1.0, 0.0)]), clip=False) for name in names))
    assert sweep.output("model") == [digest for job in alone for digest in job.output("model")]
    assert len(sweep.output("warmstack_report")) == len(names)
