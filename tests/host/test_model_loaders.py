"""Our model loaders against the stock ones: the same picture from every strategy and every form of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hostkit.client import HostClient, HostRequestError, Prompt
from hostkit.graphs import CHECKPOINT, UNET, flux_graph, sd15_graph
from hostkit.tiny_flux import write_unet
from safetensors.torch import load_file, save_file

from warmstack.loaders.gguf.chunks import CHUNK_ELEMENTS
from warmstack.nodes.models.model_weights import strategy_names

from ..nodes.model_writer import write_gguf, write_shards

LARGE = "large.safetensors"
INDEX = "shards/model.safetensors.index.json"
KINDS = ("F32", "F16", "BF16", "Q8_0")
SINGLE = [name for name in strategy_names() if name != "parallel"]
SHARDED = [name for name in strategy_names() if name != "fast_single_file"]


@pytest.fixture(scope="module")
def models(host_base: Path) -> Path:
    """A large and a tiny model in shards, one as GGUF, and beside each GGUF the same numbers as safetensors."""
    folder = host_base / "models"
    # From 64 MiB on `auto` has several threads share a file.
    assert write_unet(folder / "diffusion_models" / LARGE, width=896) > 64 << 20
    for kind, name in (("diffusion_models", LARGE), ("checkpoints", CHECKPOINT)):
        write_shards(folder / kind / "shards", load_file(folder / kind / name))
    # Here several threads share a matrix.
    write_unet(folder / "diffusion_models/wide.safetensors", width=256)
    flux = load_file(folder / "diffusion_models/wide.safetensors")
    assert max(tensor.numel() for tensor in flux.values()) > CHUNK_ELEMENTS
    for kind in KINDS:
        worth = write_gguf(folder / f"diffusion_models/gguf/{kind}.gguf", flux, kind)
        save_file(worth, folder / f"diffusion_models/gguf/{kind}.safetensors")
    (folder / "diffusion_models/broken.safetensors").write_bytes(b"\xff" * 64)
    save_file({"a.lora_A.weight": torch.zeros(2, 4)}, folder / "diffusion_models/my_lora.safetensors")
    return folder


def flux(name: str, **ours: str) -> Prompt:
    """The stock loader, or ours with those inputs."""
    prompt = flux_graph()
    stock = {"class_type": "UNETLoader", "inputs": {"unet_name": name, "weight_dtype": "default"}}
    prompt["unet"] = {"class_type": "WarmStackLoadDiffusionModel", "inputs": {"unet_name": name, **ours}}
    return prompt if ours else prompt | {"unet": stock}


def sd15(name: str, strategy: str) -> Prompt:
    checkpoint = {"class_type": "WarmStackLoadCheckpoint", "inputs": {"ckpt_name": name, "strategy": strategy}}
    return sd15_graph() | {"checkpoint": checkpoint}


def pictures(client: HostClient, prompts: Mapping[str, Prompt]) -> dict[str, str]:
    jobs = client.run(*prompts.values())
    assert {name: job.messages[-1] for name, job in zip(prompts, jobs, strict=True) if job.status != "success"} == {}
    return {name: job.output("digest")[0] for name, job in zip(prompts, jobs, strict=True)}


def test_a_diffusion_model_is_the_stock_loaders(client: HostClient, models: Path) -> None:
    ours = {
        f"{name} {strategy}": flux(name, strategy=strategy)
        for name, strategies in ((LARGE, SINGLE), (INDEX, SHARDED))
        for strategy in strategies
    }
    shown = pictures(client, {"stock": flux(LARGE), **ours})
    assert len(shown) == 13 and set(shown.values()) == {shown["stock"]}


def test_a_checkpoint_is_the_stock_loaders(client: HostClient, models: Path) -> None:
    ours = {
        f"{name} {strategy}": sd15(name, strategy)
        for name, strategies in ((CHECKPOINT, SINGLE), (INDEX, SHARDED))
        for strategy in strategies
    }
    shown = pictures(client, {"stock": sd15_graph(), **ours})
    assert len(shown) == 13 and set(shown.values()) == {shown["stock"]}


def test_every_weight_dtype_is_the_stock_loaders(client: HostClient, models: Path) -> None:
    for dtype in ("fp8_e4m3fn", "fp8_e5m2"):
        stock = flux(UNET)
        stock["unet"]["inputs"]["weight_dtype"] = dtype
        shown = pictures(client, {"stock": stock, "ours": flux(UNET, weight_dtype=dtype), "other": flux(UNET)})
        assert shown["stock"] == shown["ours"] != shown["other"]


def test_gguf_gives_the_picture_of_its_numbers(client: HostClient, models: Path) -> None:
    stock = pictures(client, {kind: flux(f"gguf/{kind}.safetensors") for kind in KINDS})
    ours = pictures(client, {kind: flux(f"gguf/{kind}.gguf", strategy="auto") for kind in KINDS})
    assert ours == stock
    assert stock["F16"] == stock["F32"] != stock["Q8_0"] and stock["BF16"] not in (stock["F16"], stock["Q8_0"])


def test_what_can_be_chosen(client: HostClient, models: Path) -> None:
    info = client.get("/object_info/WarmStackLoadDiffusionModel")["WarmStackLoadDiffusionModel"]["input"]
    listed = info["required"]["unet_name"]
    names = listed[1]["options"] if listed[0] == "COMBO" else listed[0]
    assert {UNET, INDEX, "gguf/Q8_0.gguf"} <= set(names) and not any("-of-" in name for name in names)


@pytest.mark.parametrize(
    ("name", "strategy", "says"),
    [
        ("gguf/q8_0.gguf", "auto", "did you mean 'gguf/Q8_0.gguf'"),
        ("../checkpoints/x.safetensors", "auto", "below a model folder"),
        ("broken.safetensors", "auto", "header"),
        (UNET, "parallel", "wants at least 2 files"),
    ],
)
def test_a_prompt_that_cannot_load_its_model_is_refused(
    client: HostClient, models: Path, name: str, strategy: str, says: str
) -> None:
    with pytest.raises(HostRequestError) as caught:
        client.queue(flux(name, strategy=strategy))
    assert says in str(caught.value.body) and str(models) not in str(caught.value.body)


def test_weights_of_something_else_are_one_clear_line(client: HostClient, models: Path) -> None:
    (job,) = client.run(flux("my_lora.safetensors", strategy="auto"))
    assert job.status == "error"
    message = job.messages[-1][1]["exception_message"]
    assert "my_lora.safetensors" in message and "loras folder" in message and str(models) not in message


def test_a_changed_file_is_loaded_again(client: HostClient, models: Path) -> None:
    name = "changing.safetensors"
    weights = load_file(models / "diffusion_models" / UNET)
    save_file(weights, models / "diffusion_models" / name)
    before = pictures(client, {"before": flux(name, strategy="lazy")})["before"]
    changed = {key: tensor * 0.9 for key, tensor in weights.items()}
    save_file(changed, models / "diffusion_models" / "next")
    (models / "diffusion_models" / "next").replace(models / "diffusion_models" / name)
    assert pictures(client, {"after": flux(name, strategy="lazy")})["after"] != before
