"""ComfyUI on a GPU, in each of its ways to bring weights there: our stacks beside chained stock loaders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hostkit.client import HostClient, Prompt
from hostkit.graphs import flux_graph, sd15_graph
from hostkit.server import HostInstall, HostServer

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

GRAPHS = {
    "flux": (flux_graph, [("flux/native0.safetensors", 0.8, 0.0), ("flux/diffusers0.safetensors", -0.5, 0.0),
                          ("flux/native1.safetensors", 1.0, 0.0), ("flux/native0.safetensors", 0.1, 0.0)]),
    "sd15": (sd15_graph, [("styles/ink.safetensors", 0.8, 0.6), ("styles/ldm.safetensors", 0.5, 1.0),
                          ("styles/oil.safetensors", 0.0, -0.7)]),
}  # fmt: skip
WAYS = {
    "dynamic": (),
    "dynamic, nothing pinned": ("--disable-pinned-memory",),
    "dynamic, one stream": ("--disable-async-offload",),
    "dynamic, all that is fast": ("--fast",),
    "whole": ("--disable-dynamic-vram",),
    "whole, encoders on the CPU": ("--disable-dynamic-vram", "--lowvram"),
    "weights as they are needed": ("--novram",),
    "weights as they are needed, one stream": ("--novram", "--disable-async-offload"),
    "everything": ("--gpu-only",),
}
"""Dynamic VRAM is what the host does by itself where it can. Without, what stays in RAM is patched at every use."""


@pytest.fixture(scope="module", params=WAYS)
def client(request: pytest.FixtureRequest, install: HostInstall, host_base: Path) -> Iterator[HostClient]:
    with HostServer(install, host_base, WAYS[request.param], on_gpu=True) as server:
        if request.param.startswith("dynamic") and "DynamicVRAM support detected" not in server.log:
            pytest.skip("this host has no dynamic VRAM")
        yield server.client


@pytest.mark.parametrize("name", GRAPHS)
def test_a_stack_gives_the_picture_of_stock_loaders(client: HostClient, name: str) -> None:
    graph, rows = GRAPHS[name]
    prompts: dict[str, Prompt] = {
        "plain": graph(),
        "stock": graph(rows),
        "exact": graph(rows, loader="stack", math="exact"),
        "fused": graph(rows, loader="stack", math="fused"),
        "an equal stack": graph(rows, loader="stack", math="fused", tag="again"),
        "plain again": graph(tag="again"),
    }
    jobs = dict(zip(prompts, client.run(*prompts.values(), timeout_s=240), strict=True))
    assert {name: job.messages[-1] for name, job in jobs.items() if job.status != "success"} == {}
    assert all(job.output("finite") == [True] for job in jobs.values())
    shown = {name: job.output("digest")[0] for name, job in jobs.items()}
    assert shown["exact"] == shown["stock"] != shown["plain"] == shown["plain again"]
    assert shown["an equal stack"] == shown["fused"] != shown["plain"]
