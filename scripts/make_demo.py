"""Builds what `make demo` runs on: a tiny random SDXL pipeline, a library of LoRAs in real formats, a queue."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from tiny_loras import kohya_lora, save_kohya_lora, save_peft_lora
from tiny_sdxl import tiny_sdxl

CHANNELS = (128, 256)
RANK = 96
"""High for such a small model, so that its files take long enough to read."""
ALPHA = 48.0
GAIN = 0.8
VERSION = 2
"""Of what is built: a folder with another number is built again."""

KOHYA = {
    "styles/ink.safetensors": {"convolutions": True},
    "styles/neon.safetensors": {"components": ("unet",)},
    "styles/soft.safetensors": {"components": ("unet",)},
    "characters/heron.safetensors": {},
    "details/grain.pt": {"components": ("unet",), "convolutions": True},
    "details/soft.safetensors": {},
}
PEFT = {
    "styles/watercolor.safetensors": {"text": False},
    "characters/fox.safetensors": {"text": True},
    "characters/lighthouse.safetensors": {"text": True},
    "details/edges.safetensors": {"text": False},
}
WRONG_MODEL = "styles/for-another-model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    built = folder / "built.json"
    if built.is_file() and json.loads(built.read_text(encoding="utf-8")) == VERSION:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    diffusers_logging.disable_progress_bar()
    pipeline = tiny_sdxl(folder / "tokenizers", channels=CHANNELS)
    pipeline.save_pretrained(folder / "pipeline")
    make_library(pipeline, folder / "loras")
    lines = [line if isinstance(line, str) else json.dumps(line) for line in queue_lines()]
    (folder / "queue.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    built.write_text(json.dumps(VERSION), encoding="utf-8")


def make_library(pipeline: StableDiffusionXLPipeline, folder: Path) -> None:
    for seed, (name, options) in enumerate(KOHYA.items(), 1):
        state = kohya_lora(pipeline, rank=RANK, alpha=ALPHA, gain=GAIN, seed=seed, **options)
        _save_kohya({key: value.half() for key, value in state.items()}, folder / name)
    for seed, (name, options) in enumerate(PEFT.items(), 101):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_peft_lora(pipeline, folder / name, rank=RANK, alpha=ALPHA, gain=GAIN, seed=seed, **options)
    _save_kohya(_for_another_model(), folder / WRONG_MODEL)


def _save_kohya(state: Mapping[str, torch.Tensor], path: Path) -> None:
    save_kohya_lora(state, path, rank=RANK, alpha=ALPHA, title=path.stem)


def _for_another_model() -> dict[str, torch.Tensor]:
    """One module that this UNet has too, with the width that it has in Stable Diffusion 1.5."""
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    return {
        f"{name}.lora_down.weight": torch.zeros(4, 1280),
        f"{name}.lora_up.weight": torch.zeros(1280, 4),
        f"{name}.alpha": torch.tensor(4.0),
    }


def queue_lines() -> list[object]:
    """Objects and strings as JSON values, and one line that is neither."""
    return [
        _request("base", "a lighthouse at dusk"),
        _request("ink", "a lighthouse at dusk", {"models": ["styles/ink"]}),
        _request("ink-half", "a lighthouse at dusk", {"global_weight": 0.5, "models": ["styles/ink"]}),
        _request("fox-watercolor", "a fox in the snow", {"models": [_row("fox", 0.8, "characters"), "watercolor"]}),
        _prompt("a fox in the snow <lora:fox:0.8> <lora:watercolor:0.6> <lora:edges:0.5>"),
        _request("heron-neon", "a heron in the city", {"models": [_row("heron", 0.9), _row("styles/neon", 0.7)]}),
        _request(
            "categories",
            "a heron in the city",
            {
                "global_weight": 0.9,
                "category_weights": {"styles": 0.4},
                "models": [_row("heron", 0.9, "characters"), _row("neon", 1, "styles"), _row("grain", 0.6, "details")],
            },
        ),
        _request("misspelt", "a heron in the city", {"models": [_row("styles/watercolour", 1.0)]}),
        '{"id": "cut-off", "prompt": "a heron in the ci',
        _request("soft-style", "a lighthouse at dusk", {"models": [_row("soft", 0.9, "styles")]}),
        _request("soft-detail", "a lighthouse at dusk", {"models": [_row("soft", 0.9, "details")]}),
        _request("soft-unsaid", "a lighthouse at dusk", {"models": ["soft"]}),
        _request("another-model", "a lighthouse at dusk", {"models": [WRONG_MODEL]}),
        _prompt("a lighthouse in fog <lora:characters/lighthouse:1:0.5>"),
        _request("minus-edges", "a lighthouse in fog", {"models": ["lighthouse", _row("edges", -0.6)]}),
        _request("off", "a lighthouse at dusk", {"enabled": False, "models": ["styles/ink"]}),
        _request("ink-grain", "a lighthouse at dusk", {"models": [_row("ink", 0.6), _row("grain", 0.5)]}),
        _request("everything", "a fox and a heron", {"global_weight": 0.5, "models": ["fox", "heron", "ink", "neon"]}),
    ]


def _request(name: str, prompt: str, lora: Mapping[str, object] | None = None) -> dict[str, object]:
    request: dict[str, object] = {"id": name, "prompt": prompt, "seed": 7, "steps": 6, "width": 128, "height": 128}
    return request if lora is None else {**request, "lora": dict(lora)}


def _prompt(text: str) -> str:
    return json.dumps(text)


def _row(name: str, weight: float, category: str = "") -> dict[str, object]:
    return {"name": name, "weight": weight} | ({"category": category} if category else {})


if __name__ == "__main__":
    main()
