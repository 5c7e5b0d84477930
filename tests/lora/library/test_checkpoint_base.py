from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmstack.loaders.errors import SafetensorsLoadError
from warmstack.lora.library.checkpoint_base import model_base_of, read_base_model

from ..conftest import WriteLora

UNET = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
DIFFUSERS_UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
FLUX = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "txt_in.weight": (3072, 4096)}
REFINER = "txt_in.individual_token_refiner.blocks.0.attn.qkv.weight"
XL = {"modelspec.architecture": "stable-diffusion-xl-v1-base"}

Shapes = dict[str, tuple[int, ...]]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({UNET: (320, 768)}, "sd15"),
        ({UNET: (320, 1024)}, "sd2"),
        ({UNET: (640, 2048)}, "sdxl"),
        ({DIFFUSERS_UNET: (640, 2048)}, "sdxl"),
        ({UNET: (320, 1024), "input_blocks.4.1.time_stack.0.attn1.to_k.weight": (320, 320)}, ""),
        ({UNET: (640, 2048), "encoder_hid_proj.weight": (2048, 4096)}, ""),
        ({UNET: (768, 1280)}, ""),
        ({UNET: (819200, 1)}, ""),
        (FLUX, "flux"),
        ({**FLUX, "distilled_guidance_layer.in_proj.weight": (5120, 64)}, "chroma"),
        ({**FLUX, "double_stream_modulation_img.lin.weight": (36864, 6144)}, "flux2"),
        ({**FLUX, "txt_in.weight": (2304, 4096)}, ""),
        ({"double_stream_blocks.0.block.attn1.to_k.weight": (2560, 2560)}, "hidream"),
        ({"double_blocks.0.x": (1,), REFINER: (1, 1), "img_in.proj.weight": (3072, 16, 1, 2, 2)}, "hunyuan-video"),
        ({"double_blocks.0.x": (1,), REFINER: (1, 1), "img_in.proj.weight": (3584, 64, 1, 1)}, ""),
        ({"joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536)}, "sd3"),
        ({"transformer_blocks.0.img_mod.1.weight": (18432, 3072), "txt_in.weight": (3072, 3584)}, "qwen-image"),
        ({"blocks.0.cross_attn.q.weight": (1536, 1536), "head.modulation": (1, 2, 1536)}, "wan"),
        ({"blocks.0.cross_attn.q_proj.weight": (2048, 2048)}, ""),
        ({"cap_embedder.1.weight": (3840, 2560)}, "z-image"),
        ({"cap_embedder.1.weight": (2304, 2304)}, "lumina2"),
        ({"patchify_proj.weight": (2048, 128), "transformer_blocks.0.attn1.to_k.weight": (2048, 2048)}, "ltx-video"),
        ({"encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3)}, ""),
        ({}, ""),
    ],
)
def test_the_tensors_tell(shapes: Shapes, expected: str, prefix: str) -> None:
    found = model_base_of({"first_stage_model.x": (1,), **{prefix + key: shape for key, shape in shapes.items()}}, {})
    assert found.name == expected
    assert bool(found.evidence) == bool(expected)


def test_metadata_counts_where_the_tensors_say_nothing() -> None:
    assert model_base_of({"x": (1,)}, XL).name == "sdxl"
    assert model_base_of({UNET: (320, 768)}, XL).name == "sd15"
    assert model_base_of({UNET: (768, 1280)}, XL).name == "", "the refiner calls itself what its base is"


def test_a_file_is_told_by_its_header(tmp_path: Path, write_lora: WriteLora) -> None:
    assert read_base_model(write_lora(tmp_path / "a.safetensors", {UNET: [2, 2048]})).name == "sdxl"
    assert read_base_model(write_lora(tmp_path / "b.sft", {"x": [1]}, XL)).name == "sdxl"


def test_shards_are_told_together(tmp_path: Path, write_lora: WriteLora) -> None:
    for name, key in (("a", "blocks.0.cross_attn.q.weight"), ("b", "head.modulation")):
        write_lora(tmp_path / f"{name}.safetensors", {key: [2, 2]})
    index = tmp_path / "wan.safetensors.index.json"
    weight_map = {"blocks.0.cross_attn.q.weight": "a.safetensors", "head.modulation": "b.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert read_base_model(index).name == "wan"
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(SafetensorsLoadError):
        read_base_model(index)


def test_a_gguf_file_tells_by_its_shapes(tmp_path: Path) -> None:
    np, gguf = pytest.importorskip("numpy"), pytest.importorskip("gguf")
    path = tmp_path / "unet.gguf"
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_tensor(UNET, np.zeros((2, 768), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_base_model(path).name == "sd15"


def test_nothing_is_read_of_a_pickle_and_a_damaged_header_is_said(tmp_path: Path) -> None:
    assert read_base_model(tmp_path / "not there.ckpt").name == ""
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(SafetensorsLoadError):
        read_base_model(tmp_path / "x.safetensors")
