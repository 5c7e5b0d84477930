"""Writes the tiny models under a base directory's `models/`."""

from __future__ import annotations

from pathlib import Path

from . import graphs, tiny_flux, tiny_sd15


def write_models(base: Path, *, sd15: bool = True, flux: bool = True) -> None:
    if sd15:
        tiny_sd15.write_checkpoint(base / "models/checkpoints" / graphs.CHECKPOINT)
    if flux:
        tiny_flux.write_unet(base / "models/diffusion_models" / graphs.UNET)
        tiny_flux.write_vae(base / "models/vae" / graphs.VAE)


def lora_path(base: Path, name: str) -> Path:
    return base / "models/loras" / name
