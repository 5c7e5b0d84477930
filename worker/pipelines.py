"""A diffusers pipeline from a folder, and one picture from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .batch import Image
from .naming import LoraPipeline
from .request import QueueRequest

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_pipeline(folder: Path, device: str = "auto", dtype: str = "auto") -> Any:
    """The pipeline saved in `folder`. Never downloads. "auto": CUDA and float16 if there is one, else CPU and float32.

    Raises OSError and ValueError when the folder holds no pipeline, and ValueError for one that takes no LoRA or lacks
    a package that it needs.
    """
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} holds no diffusers pipeline; save one there with save_pretrained")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = DTYPES.get(dtype, torch.float16 if device.startswith("cuda") else torch.float32)
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=wanted)
    except ImportError as problem:
        raise ValueError(f"the pipeline in {folder} cannot be loaded: {' '.join(str(problem).split())}") from problem
    if not getattr(pipeline, "_lora_loadable_modules", None):
        raise ValueError(f"{type(pipeline).__name__} takes no LoRA; choose a pipeline that does")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


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
        image: Image = pipeline(prompt=request.prompt, generator=noise, **given).images[0]
        return image
