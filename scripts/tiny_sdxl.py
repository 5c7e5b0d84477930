"""A tiny random SDXL pipeline, whole and offline: two text encoders, tokenizers of single letters, UNet, VAE.

Same module names as the real one, so real key formats, converters and LoRA files work on it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_TEXT_HIDDEN = 32
_POOLED = 32
_TIME_IDS = 6
_TIME_EMBED = 8


def tiny_sdxl(folder: Path, *, channels: tuple[int, int] = (32, 64), seed: int = 0) -> StableDiffusionXLPipeline:
    """A float32 pipeline on the CPU with UNet widths `channels` (multiples of 32). Its tokenizers stay in `folder`."""
    torch.manual_seed(seed)
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()).eval(),
        tokenizer=_tokenizer(folder / "tokenizer"),
        tokenizer_2=_tokenizer(folder / "tokenizer_2"),
        unet=_unet(channels),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    _make_visible(pipeline)
    return pipeline


@torch.no_grad()
def _make_visible(pipeline: StableDiffusionXLPipeline) -> None:
    """Soft shapes in place of noise, and a UNet loud enough for a LoRA to change what one sees."""
    pipeline.unet.conv_out.weight.mul_(3)
    row = torch.tensor([1.0, 2.0, 1.0])
    blur = row[:, None] * row / 16
    for module in pipeline.vae.decoder.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            mixed = torch.randn(module.out_channels, module.in_channels, 1, 1) / module.in_channels**0.5
            module.weight.copy_(mixed * blur * 1.6)


def _unet(channels: tuple[int, int]) -> UNet2DConditionModel:
    """Two levels; the second one has attention, as in SDXL, whose first level has none."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=2 * _TEXT_HIDDEN,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_EMBED,
        projection_class_embeddings_input_dim=_TIME_IDS * _TIME_EMBED + _POOLED,
        norm_num_groups=16,
    ).eval()


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=128,
    ).eval()


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=_TEXT_HIDDEN,
        intermediate_size=2 * _TEXT_HIDDEN,
        projection_dim=_POOLED,
        num_attention_heads=4,
        num_hidden_layers=3,
        max_position_embeddings=77,
        bos_token_id=_vocabulary()["<|startoftext|>"],
        eos_token_id=_vocabulary()["<|endoftext|>"],
    )


def _vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: index for index, word in enumerate(words)}


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """No merges: a prompt is spelled letter by letter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(_vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=77)
