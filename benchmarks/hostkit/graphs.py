"""Prompts for the tiny models, as an API client would write them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .client import Prompt

Row = tuple[str, float, float]
"""(LoRA name, strength_model, strength_clip)."""

Link = list[object]
"""[node id, output index]."""

CHECKPOINT = "tiny_sd15.safetensors"
UNET = "tiny_flux.safetensors"
VAE = "tiny_tae16.safetensors"


def flux_graph(
    rows: Sequence[Row] = (),
    *,
    loader: str = "stock",
    math: str = "exact",
    hold_s: float = 0.0,
    seed: int = 1,
    tag: str = "",
) -> Prompt:
    """Recipe B: model-only LoRAs. `loader` is "stock" (LoraLoaderModelOnly chained) or "stack"
    (WarmStackLoadLoraStack).
    `tag` makes an otherwise equal job run again."""
    prompt: Prompt = {
        "unet": _node("UNETLoader", unet_name=UNET, weight_dtype="default"),
        "vae": _node("VAELoader", vae_name=VAE),
        "cond": _node("TestConditioning", width=64, pooled=64, seed=0),
        "empty": _node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
    }
    model = _loras(prompt, rows, ["unet", 0], None, loader, math)[0]
    return prompt | _sampling(model, ["cond", 0], ["vae", 0], "simple", hold_s, seed, tag)


def sd15_graph(
    rows: Sequence[Row] = (),
    *,
    loader: str = "stock",
    math: str = "exact",
    hold_s: float = 0.0,
    seed: int = 1,
    tag: str = "",
) -> Prompt:
    """Recipe A: model and text encoder. `loader` is "stock" (LoraLoader chained) or "stack"."""
    prompt: Prompt = {
        "checkpoint": _node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "empty": _node("EmptyLatentImage", width=64, height=64, batch_size=1),
    }
    model, clip = _loras(prompt, rows, ["checkpoint", 0], ["checkpoint", 1], loader, math)
    prompt["cond"] = _node("CLIPTextEncode", text="a lighthouse at dusk", clip=clip)
    return prompt | _sampling(model, ["cond", 0], ["checkpoint", 2], "normal", hold_s, seed, tag)


def digest_graph(prompt: Prompt, *, clip: bool) -> Prompt:
    """The same loaders with a digest of every patched weight in place of sampling."""
    sampler = prompt["sampler"]["inputs"]
    kept = {
        k: v
        for k, v in prompt.items()
        if k not in {"sampler", "hold", "decode", "save", "digest", "cond", "empty", "vae"}
    }
    inputs = {"model": sampler["model"]} | ({"clip": prompt["cond"]["inputs"]["clip"]} if clip else {})
    return kept | {"digest": _node("TestModelDigest", **inputs)}


def _loras(
    prompt: Prompt, rows: Sequence[Row], model: Link, clip: Link | None, loader: str, math: str
) -> tuple[Link, Link | None]:
    """Adds the loader nodes to `prompt`; returns where the patched model and CLIP come out."""
    if not rows:
        return model, clip
    if loader == "stack":
        listed = json.dumps([{"name": n, "strength_model": m, "strength_clip": c} for n, m, c in rows])
        prompt["stack"] = _node(
            "WarmStackLoadLoraStack", model=model, loras=listed, math=math, **({"clip": clip} if clip else {})
        )
        return ["stack", 0], ["stack", 1] if clip else None
    for index, (name, strength_model, strength_clip) in enumerate(rows):
        key = f"lora{index}"
        if clip is None:
            prompt[key] = _node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=strength_model)
        else:
            prompt[key] = _node(
                "LoraLoader",
                model=model,
                clip=clip,
                lora_name=name,
                strength_model=strength_model,
                strength_clip=strength_clip,
            )
            clip = [key, 1]
        model = [key, 0]
    return model, clip


def _sampling(model: Link, cond: Link, vae: Link, scheduler: str, hold_s: float, seed: int, tag: str) -> Prompt:
    return {
        "sampler": _node(
            "KSampler", model=model, positive=cond, negative=cond, latent_image=["empty", 0],
            seed=seed, steps=1, cfg=1.0, sampler_name="euler", scheduler=scheduler, denoise=1.0,
        ),
        "hold": _node("TestHold", latent=["sampler", 0], seconds=hold_s, tag=tag),
        "decode": _node("VAEDecode", samples=["hold", 0], vae=vae),
        "save": _node("SaveImage", images=["decode", 0], filename_prefix="hostkit"),
        "digest": _node("TestDigest", image=["decode", 0]),
    }  # fmt: skip


def _node(class_type: str, /, **inputs: object) -> dict[str, object]:
    return {"class_type": class_type, "inputs": inputs}
