"""ComfyUI on a GPU, in each of its ways to bring weights there: our stacks beside chained stock loaders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostkit.client import Finished, Prompt
from hostkit.graphs import flux_graph, sd15_graph
from hostkit.server import HostInstall, HostServer
from PIL import Image

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
def server(request: pytest.FixtureRequest, install: HostInstall, host_base: Path) -> Iterator[HostServer]:
    with HostServer(install, host_base, WAYS[request.param], on_gpu=True) as running:
        if request.param.startswith("dynamic") and "DynamicVRAM support detected" not in running.log:
            pytest.skip("this host has no dynamic VRAM")
        yield running


@pytest.mark.parametrize("name", GRAPHS)
def test_a_stack_gives_the_picture_of_stock_loaders(server: HostServer, name: str) -> None:
    graph, rows = GRAPHS[name]
    prompts: dict[str, Prompt] = {
        "plain": graph(),
        "stock": graph(rows),
        "exact": graph(rows, loader="stack", math="exact"),
        "fused": graph(rows, loader="stack", math="fused"),
        "an equal stack": graph(rows, loader="stack", math="fused", tag="again"),
        "plain again": graph(tag="again"),
    }
    jobs = _finished(server, prompts)
    shown = {name: job.output("digest")[0] for name, job in jobs.items()}
    assert shown["exact"] == shown["stock"] != shown["plain"] == shown["plain again"]
    assert shown["an equal stack"] == shown["fused"]
    plain, stock, fused = (_picture(server, jobs[name]) for name in ("plain", "stock", "fused"))
    # Rounding, which sampling enlarges: a thirtieth of what the stack changes.
    assert np.abs(fused - stock).mean() < np.abs(plain - stock).mean() / 10


@pytest.mark.parametrize("name", GRAPHS)
def test_a_stack_is_whole_although_the_gpu_had_no_memory_to_add_it(server: HostServer, name: str) -> None:
    """Under dynamic VRAM, a weight whose patch raised would be taken for patched from then on."""
    graph, rows = GRAPHS[name]
    short = graph(rows[:2], loader="stack", math="fused")
    short["short"] = {"class_type": "TestShortOfMemory", "inputs": {"model": short["sampler"]["inputs"]["model"]}}
    short["sampler"]["inputs"]["model"] = ["short", 0]
    told = server.log.count("are added on the CPU")
    jobs = _finished(
        server,
        {
            "plain": graph(),
            "short": short,
            "with memory": graph(rows[:2], loader="stack", math="fused", tag="again"),
            "plain again": graph(tag="again"),
        },
    )
    assert server.log.count("are added on the CPU") == told + 1
    shown = {name: job.output("digest")[0] for name, job in jobs.items()}
    assert shown["short"] != shown["plain"] == shown["plain again"]
    if "SIMULATED_GPU_FOR_COMFYUI" in os.environ:  # a real one's last bits are not a CPU's
        assert shown["short"] == shown["with memory"]


def _finished(server: HostServer, prompts: dict[str, Prompt]) -> dict[str, Finished]:
    jobs = dict(zip(prompts, server.client.run(*prompts.values(), timeout_s=240), strict=True))
    assert {name: job.messages[-1] for name, job in jobs.items() if job.status != "success"} == {}
    assert all(job.output("finite") == [True] for job in jobs.values())
    return jobs


def _picture(server: HostServer, job: Finished) -> np.ndarray:
    (saved,) = job.output("images")
    return np.asarray(Image.open(server.base / "output" / saved["subfolder"] / saved["filename"]), dtype=float)
