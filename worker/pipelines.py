"""A diffusers pipeline from a folder, and one picture from it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from .batch import Image
from .lora_pipeline import LoraPipeline
from .request import QueueRequest

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PICTURES = ("images", "image")
"""What pipelines call them in their answer; the second is Kandinsky's."""


def load_pipeline(folder: Path, device: str = "auto", dtype: str = "auto") -> Any:
    """The pipeline saved in `folder`. Never downloads. "auto": CUDA and float16 if there is one, else CPU and float32.

    Raises OSError and ValueError when the folder holds no pipeline, and ValueError for one that takes no LoRA, makes no
    pictures or lacks a package that it needs, and for a device that is not there.
    """
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} holds no diffusers pipeline; save one there with save_pretrained")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _require(device)
    wanted = DTYPES.get(dtype, torch.float16 if device.startswith("cuda") else torch.float32)
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=wanted)
    except ImportError as problem:
        raise ValueError(f"the pipeline in {folder} cannot be loaded: {' '.join(str(problem).split())}") from problem
    if not getattr(pipeline, "_lora_loadable_modules", None):
        raise ValueError(f"{type(pipeline).__name__} takes no LoRA; choose a pipeline that does")
    answer = _answer(type(pipeline))
    if answer and not any(name in answer for name in _PICTURES):
        raise ValueError(
            f"{type(pipeline).__name__} makes {', '.join(answer)} and no pictures; choose a pipeline that does, or "
            "use this one from Python with LoRAWorker"
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _require(device: str) -> None:
    try:
        torch.empty(0, device=device)
    # AssertionError: what torch raises for CUDA in a build without it.
    except (RuntimeError, AssertionError) as problem:
        reason, _, _ = str(problem).partition("\n")
        raise ValueError(f"--device {device} is not there: {reason}") from problem


def _answer(kind: type) -> tuple[str, ...]:
    """What a call gives, as far as its code says: to see it, one would have to wait for a whole video."""
    call: Any = inspect.unwrap(kind.__call__)
    named = [call.__globals__.get(name) for name in call.__code__.co_names]
    outputs = [found for found in named if isinstance(found, type) and issubclass(found, BaseOutput)]
    return tuple(field for output in outputs for field in getattr(output, "__dataclass_fields__", ()))


@dataclass(frozen=True, slots=True)
class Generator:
    """Makes one picture; the noise comes from the CPU, so that a seed means the same on every device."""

    steps: int | None = None
    """Of requests that say none; None: the pipeline's own number."""

    def __call__(self, pipeline: LoraPipeline, request: QueueRequest) -> Image:
        asked = {
            "negative_prompt": request.negative_prompt or None,
            "num_inference_steps": request.steps or self.steps,
            "guidance_scale": request.guidance_scale,
            "width": request.width,
            "height": request.height,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        noise = torch.Generator("cpu").manual_seed(request.seed)
        answer = pipeline(prompt=request.prompt, generator=noise, **given)
        images = next((found for name in _PICTURES if (found := getattr(answer, name, None)) is not None), None)
        if images is None:
            raise ValueError(f"{type(pipeline).__name__} made no picture; choose a pipeline that does")
        image: Image = images[0]
        return image
