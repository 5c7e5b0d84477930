from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.loaders.files.header import read_header
from warmstack.lora.library.base_model import base_model_of, rank_of

from ..conftest import WriteLora

X = {"x.lora_down.weight": [4, 8], "x.lora_up.weight": [8, 4]}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"ss_base_model_version": "sd_v1"}, "sd15"),
        ({"ss_base_model_version": "sd_1.5"}, "sd15"),
        ({"ss_base_model_version": "SD1.5"}, "sd15"),
        ({"ss_base_model_version": "sd_v2_v"}, "sd2"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"ss_base_model_version": "sdxl_"}, "sdxl"),
        ({"ss_base_model_version": "sd3m"}, "sd3"),
        ({"ss_base_model_version": "sd3.5-large"}, "sd3"),
        ({"ss_base_model_version": "flux1"}, "flux"),
        ({"ss_base_model_version": "flux_kontext"}, "flux"),
        ({"ss_base_model_version": "flux_2_klein_4b"}, "flux2"),
        ({"ss_base_model_version": "flux2_klein_4b"}, "flux2"),
        ({"ss_base_model_version": "wan"}, "wan"),
        ({"ss_base_model_version": "wan22_14b"}, "wan"),
        ({"ss_base_model_version": "qwen_image_edit"}, "qwen-image"),
        ({"ss_base_model_version": "zimage_turbo"}, "z-image"),
        ({"ss_base_model_version": "z_image"}, "z-image"),
        ({"ss_base_model_version": "hunyuan_video_1_5"}, "hunyuan-video"),
        ({"ss_base_model_version": "framepack"}, "hunyuan-video"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, "sd15"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "sd2"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"modelspec.architecture": "stabilityai/stable-diffusion-3-medium"}, "sd3"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "flux"),
        ({"modelspec.architecture": "Flux.1-dev/lora"}, "flux"),
        ({"modelspec.architecture": "hunyuan-image-2.1/lora"}, "hunyuan-image"),
        ({"modelspec.architecture": "lumina-2/lora"}, "lumina2"),
        ({"modelspec.architecture": "chroma/lora"}, "chroma"),
        ({"ss_v2": "True"}, "sd2"),
        ({"ss_base_model_version": "unheard-of", "modelspec.architecture": "wan2.1"}, "wan"),
        ({"ss_base_model_version": "anima"}, "anima"),
        ({"ss_base_model_version": "anime-thing"}, ""),
        ({"ss_base_model_version": "sd_v15x"}, ""),
        ({"ss_base_model_version": "wander"}, ""),
        ({}, ""),
    ],
)
def test_what_the_trainer_wrote(tmp_path: Path, write_lora: WriteLora, metadata: dict[str, str], expected: str) -> None:
    found = base_model_of(read_header(write_lora(tmp_path / "x.safetensors", X, metadata)))
    assert found.name == expected
    assert bool(found.evidence) == bool(expected)


def down(module: str, inputs: int, *, suffix: str = ".lora_down.weight") -> dict[str, list[int]]:
    return {module + suffix: [4, inputs]}


KOHYA_UNET = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
PEFT = ".lora_A.weight"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (down("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 768), "sd15"),
        (down("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 1024), "sd2"),
        (down(KOHYA_UNET, 2048), "sdxl"),
        (down("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048, suffix=PEFT), "sdxl"),
        (
            down("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora", 768, suffix=".down.weight"),
            "sd15",
        ),
        (down("lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q", 1280), "sdxl"),
        (down("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 640), ""),
        (down(KOHYA_UNET, 64), ""),
        (down("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280), "sdxl"),
        (down(KOHYA_UNET, 2048) | down("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280), "sdxl"),
        (
            down("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 1280, suffix=PEFT)
            | down("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 1280, suffix=PEFT),
            "sdxl",
        ),
        (
            down("transformer.transformer_blocks.0.attn.to_q", 1536, suffix=PEFT)
            | down("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", 1280, suffix=PEFT),
            "sd3",
        ),
        (
            down("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536)
            | down("lora_te2_text_model_encoder_layers_0_mlp_fc1", 1280),
            "sd3",
        ),
        (
            down("lora_unet_double_blocks_0_img_attn_qkv", 3072) | down("lora_te2_encoder_block_0_layer_0", 4096),
            "flux",
        ),
        (down("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768), "sd15"),
        (down("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 1024), "sd2"),
        (down("lora_unet_double_blocks_0_img_attn_qkv", 3072), "flux"),
        (down("diffusion_model.double_blocks.0.img_attn.qkv", 3072, suffix=PEFT), "flux"),
        (down("diffusion_model.single_blocks.0.linear1", 3072, suffix=PEFT), "flux"),
        (down("diffusion_model.double_blocks.0.img_attn.qkv", 6144, suffix=PEFT), ""),
        (down("transformer.single_transformer_blocks.0.attn.to_q", 3072, suffix=PEFT), "flux"),
        (down("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 6144, suffix=PEFT), "flux2"),
        (down("diffusion_model.double_blocks.0.img_attn_qkv", 3072, suffix=PEFT), "hunyuan-video"),
        (down("lora_unet_double_blocks_0_img_mlp_fc1", 3072), "hunyuan-video"),
        (
            down("transformer.single_transformer_blocks.0.attn.to_q", 3072, suffix=PEFT)
            | down("transformer.transformer_blocks.19.attn.to_q", 3072, suffix=PEFT),
            "hunyuan-video",
        ),
        (
            down("transformer.single_transformer_blocks.37.attn.to_q", 3072, suffix=PEFT)
            | down("transformer.transformer_blocks.18.attn.to_q", 3072, suffix=PEFT),
            "flux",
        ),
        (down("diffusion_model.joint_blocks.0.x_block.attn.qkv", 1536, suffix=PEFT), "sd3"),
        (down("transformer.transformer_blocks.0.attn.add_q_proj", 1536, suffix=PEFT), "sd3"),
        (down("transformer.transformer_blocks.0.attn.add_q_proj", 3072, suffix=PEFT), "qwen-image"),
        (down("diffusion_model.transformer_blocks.0.img_mlp.net.0.proj", 3072, suffix=PEFT), "qwen-image"),
        (down("diffusion_model.blocks.0.cross_attn.k", 5120, suffix=PEFT), "wan"),
        (down("blocks.0.self_attn.q", 5120, suffix=PEFT), "wan"),
        (down("lora_unet_blocks_0_self_attn_q", 1536), "wan"),
        (down("transformer.blocks.0.attn2.to_k", 5120, suffix=PEFT), "wan"),
        (down("diffusion_model.blocks.0.self_attn.q_proj", 2048, suffix=PEFT), ""),
        (down("diffusion_model.layers.0.attention.to_q", 3840, suffix=PEFT), "z-image"),
        (down("lora_unet_layers_0_attention_qkv", 2304), "lumina2"),
        (down("diffusion_model.transformer_blocks.0.attn1.to_q", 2048, suffix=PEFT), "ltx-video"),
        (down("transformer.transformer_blocks.0.attn1.to_q", 1152, suffix=PEFT), "pixart"),
        (down("diffusion_model.double_stream_blocks.0.block.attn1.to_q", 2560, suffix=PEFT), "hidream"),
        (X, ""),
    ],
)
def test_what_names_and_shapes_tell(
    tmp_path: Path, write_lora: WriteLora, shapes: dict[str, list[int]], expected: str
) -> None:
    found = base_model_of(read_header(write_lora(tmp_path / "x.safetensors", shapes)))
    assert found.name == expected
    assert bool(found.evidence) == bool(expected)


@pytest.mark.parametrize(
    ("shapes", "rank"),
    [
        ({"a.lora_down.weight": [8, 3], "b.lora_down.weight": [8, 3, 1, 1], "c.lora_down.weight": [4, 3]}, 8),
        ({"a.lora_A.weight": [16, 3]}, 16),
        ({"a.lora_A.default.weight": [16, 3]}, 16),
        ({"a_lora.down.weight": [2, 3]}, 2),
        ({"a.lokr_w1": [2, 3], "a.alpha": []}, None),
    ],
)
def test_rank_is_that_of_most_modules(
    tmp_path: Path, write_lora: WriteLora, shapes: dict[str, list[int]], rank: int | None
) -> None:
    assert rank_of(read_header(write_lora(tmp_path / "x.safetensors", shapes))) == rank
