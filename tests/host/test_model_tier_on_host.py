"""Models read ahead in a real ComfyUI: warm before their turn, the same pictures, no loader of the host forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostkit.client import HostClient, Prompt
from hostkit.graphs import CHECKPOINT, UNET, flux_graph, sd15_graph
from hostkit.models import write_models
from hostkit.queue_run import drop_pages
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_flux import write_unet
from hostkit.tiny_sd15 import write_checkpoint

from warmstack.loaders.system.page_cache import resident_bytes
from warmstack.prefetch.models.reading import NEGLIGIBLE_SHARE
from warmstack.prefetch.references.model_recognisers import MODEL_INPUTS

from .patience import until

ROOT = "/warmstack/v1"
OTHER = "sub/other.safetensors"
NO_MODELS = {"loras", "configs", "custom_nodes", "datasets", "diffusers", "embeddings", "classifiers", "vae_approx"}
"""Kinds of folders of the host that hold no models, or none that is worth a read."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = make_base_directory(tmp_path_factory.mktemp("models"))
    write_models(base)
    write_checkpoint(base / "models/checkpoints" / OTHER, seed=71)
    write_unet(base / "models/diffusion_models" / OTHER, seed=72)
    for kind in {row.kind for rows in MODEL_INPUTS.values() for row in rows}:
        (base / "models" / kind).mkdir(exist_ok=True)
        (base / "models" / kind / f"only-{kind}.safetensors").touch()
    return base


@pytest.fixture(scope="module")
def own_client(install: HostInstall, base: Path) -> Iterator[HostClient]:
    with HostServer(install, base) as server:
        yield server.client


def other_model(prompt: Prompt) -> Prompt:
    """The same job on the other checkpoint or diffusion model."""
    inputs = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for node in inputs.values():
        for key in ("ckpt_name", "unet_name"):
            if key in node["inputs"]:
                node["inputs"][key] = OTHER
    return inputs


@pytest.mark.parametrize("kind", ["checkpoints", "diffusion_models"])
def test_the_next_model_is_warm_before_its_turn_and_no_picture_depends_on_it(
    own_client: HostClient, base: Path, kind: str
) -> None:
    off, on = (pair_of_pictures(own_client, base, kind, tier) for tier in (False, True))
    assert off == on
    assert off[0] != off[1], "the models differ"


def pair_of_pictures(client: HostClient, base: Path, kind: str, tier: bool) -> list[list[Any]]:
    """Two jobs with a model each, the second one's file cold; looked at while the first one runs."""
    graph: Callable[..., Prompt] = sd15_graph if kind == "checkpoints" else flux_graph
    path = base / "models" / kind / OTHER
    client.post(f"{ROOT}/settings", {"model_tier": tier})
    client.run(graph(tag=f"{kind} {tier} first"))
    drop_pages(path)
    assert (resident_bytes(path) or 0) < path.stat().st_size / 2
    before = client.get(f"{ROOT}/status")["prefetch"]["models"]
    running = client.queue(graph(hold_s=6.0 if tier else 1.0, tag=f"{kind} {tier} held"))
    waiting = client.queue(other_model(graph(tag=f"{kind} {tier}")))
    if tier:
        status = until(client, lambda status: states(status).get((waiting, OTHER)) == "ready")
        assert [job["job_id"] for job in status["queue"]] == [running, waiting]
        assert (resident_bytes(path) or 0) >= path.stat().st_size * (1 - 1 / NEGLIGIBLE_SHARE)
        assert states(status)[running, CHECKPOINT if kind == "checkpoints" else UNET] == "in_use"
        assert str(base) not in json.dumps(status)
    finished = client.wait([running, waiting])
    after = client.get(f"{ROOT}/status")["prefetch"]["models"]
    assert (after["warmed_bytes"] - before["warmed_bytes"] >= path.stat().st_size) is tier
    assert tier or after == before
    return [job.output("digest") for job in finished]


def test_the_figures_tell_of_the_hit(own_client: HostClient, base: Path) -> None:
    path = base / "models/checkpoints" / OTHER
    own_client.post(f"{ROOT}/settings", {"model_tier": True})
    own_client.run(sd15_graph(tag="figures first"))
    drop_pages(path)
    before = own_client.get(f"{ROOT}/status")["prefetch"]["models"]
    jobs = [
        own_client.queue(sd15_graph(hold_s=4.0, tag="figures")),
        own_client.queue(other_model(sd15_graph(tag="figures"))),
    ]
    own_client.wait(jobs)
    after = until(own_client, lambda status: not status["queue"])["prefetch"]["models"]
    grown = {key: after[key] - before[key] for key in ("hits", "joins", "misses", "demand_bytes", "wasted_bytes")}
    # A virtual machine may take back pages of a file at any time; it is then being read again when it is demanded.
    assert grown.pop("hits") + grown.pop("joins") == 1
    assert grown == {"misses": 0, "demand_bytes": path.stat().st_size, "wasted_bytes": 0}


def test_every_loader_of_the_host_is_in_the_table(own_client: HostClient) -> None:
    """Each folder holds one file that no other has: whatever offers it reads models of that kind."""
    kinds = {f"only-{kind}.safetensors": kind for rows in MODEL_INPUTS.values() for _, kind, _ in rows}
    offering = {
        (class_type, key, kinds[name])
        for class_type, info in own_client.get("/object_info").items()
        for group in info["input"].values()
        for key, spec in group.items()
        for name in _options(spec)
        if isinstance(name, str) and name in kinds
    }
    classes = own_client.get("/object_info").keys() & MODEL_INPUTS.keys()
    assert len(classes) > 30
    assert offering == {(class_type, row.key, row.kind) for class_type in classes for row in MODEL_INPUTS[class_type]}
    unlisted = set(own_client.get("/models")) - set(kinds.values()) - NO_MODELS
    assert unlisted == set(), "a kind of folder that the table does not know"


def _options(spec: Any) -> list[Any]:
    """What an input lets one choose from, old form or new; an input that the host fills in itself is a bare word."""
    if not isinstance(spec, list) or not spec:
        return []
    listed = spec[0] if isinstance(spec[0], list) else (spec[1] if len(spec) > 1 else {}).get("options")
    return listed if isinstance(listed, list) else []


def states(status: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(job["job_id"], model["name"]): model["state"] for job in status["queue"] for model in job["models"]}
