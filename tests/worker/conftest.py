"""A tiny SDXL pipeline and a small library in real formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# Before diffusers: it creates its loggers while it is imported.
from transformers.utils import logging as transformers_logging

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

from tiny_loras import kohya_lora, save_kohya_lora, save_peft_lora  # noqa: E402
from tiny_sdxl import tiny_sdxl  # noqa: E402

from warmstack.worker.config import LoRAWorkerConfig  # noqa: E402
from warmstack.worker.lora_worker import LoRAWorker  # noqa: E402

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
Weights = dict[str, torch.Tensor]


def weights_of(pipeline: Any) -> Weights:
    """Copies of every tensor of the patchable components, by `component.key`."""
    return {
        f"{component}.{key}": value.detach().clone()
        for component in COMPONENTS
        for key, value in getattr(pipeline, component).state_dict().items()
    }


def changed(before: Weights, after: Weights) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key in before if not torch.equal(before[key], after[key])}


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pipeline = tiny_sdxl(tmp_path_factory.mktemp("tokenizers"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(sdxl: Any) -> Iterator[Any]:
    """The session's pipeline with its own weights, which a failing test cannot leave changed."""
    before = weights_of(sdxl)
    yield sdxl
    for component in COMPONENTS:
        prefix = f"{component}."
        own = {key.removeprefix(prefix): value for key, value in before.items() if key.startswith(prefix)}
        getattr(sdxl, component).load_state_dict(own)


@pytest.fixture(scope="session")
def library(sdxl: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """styles/ink (kohya, convolutions, all three models), styles/wash (peft), characters/fox (peft with text encoders),
    details/grain.pt (kohya, UNet alone), and `soft` in two folders."""
    folder = tmp_path_factory.mktemp("loras")

    def kohya(name: str, seed: int, **options: Any) -> None:
        state = kohya_lora(sdxl, rank=4, alpha=2.0, gain=0.3, seed=seed, **options)
        save_kohya_lora(state, folder / name, rank=4, alpha=2.0, title=Path(name).stem)

    def peft(name: str, seed: int, *, text: bool) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        save_peft_lora(sdxl, folder / name, rank=6, alpha=9.0, gain=0.3, seed=seed, text=text)

    kohya("styles/ink.safetensors", 1, convolutions=True)
    kohya("styles/soft.safetensors", 2, components=("unet",))
    kohya("details/soft.safetensors", 3, components=("unet",))
    kohya("details/grain.pt", 4, components=("unet",))
    peft("styles/wash.safetensors", 5, text=False)
    peft("characters/fox.safetensors", 6, text=True)
    return folder


@pytest.fixture
def make_worker(library: Path) -> Callable[..., LoRAWorker]:
    """A worker on the library; keyword arguments go into its configuration."""

    def make(**settings: Any) -> LoRAWorker:
        worker = LoRAWorker(LoRAWorkerConfig(**{"lora_directories": library, **settings}))
        worker.discover()
        return worker

    return make
