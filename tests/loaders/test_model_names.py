"""Files whose keys are not the model's own: `load_module` finds what `from_pretrained` does, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from warmstack.loaders import LoadProgress, SafetensorsValidationError, load_module

Rename = Callable[[str], str]
CLIP = CLIPTextConfig(
    vocab_size=20,
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=5,
    projection_dim=4,
    bos_token_id=0,
    eos_token_id=1,
)
BERT = BertConfig(vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(32,), latent_channels=4, norm_num_groups=8)


def old_attention_name(key: str) -> str:
    """As diffusers wrote it before 0.17."""
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return key


def rename_in(folder: Path, rename: Rename) -> set[str]:
    """The names that a saved model's tensors have from now on."""
    path = folder / "model.safetensors"
    if not path.exists():
        path = folder / "diffusion_pytorch_model.safetensors"
    tensors = {rename(key): tensor for key, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return set(tensors)


def same_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    state, expected = ours.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in state.items())


def test_a_vae_with_the_attention_names_of_old(tmp_path: Path):
    tiny_vae().save_pretrained(tmp_path)
    names = rename_in(tmp_path, old_attention_name)
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in names
    seen: list[LoadProgress] = []
    ours = load_module(
        lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(tmp_path)), tmp_path, progress=seen.append
    )
    same_weights(ours, AutoencoderKL.from_pretrained(tmp_path))
    assert seen[-1].done_bytes == seen[-1].total_bytes
    part = load_module(
        lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(tmp_path)),
        tmp_path,
        device_map={"encoder.mid_block.attentions.0.to_q": "disk"},
    )
    assert part.encoder.mid_block.attentions[0].to_q.weight.is_meta
    assert not part.encoder.mid_block.attentions[0].to_k.weight.is_meta


@pytest.mark.parametrize(
    ("kind", "config", "rename"),
    [
        pytest.param(CLIPTextModel, CLIP, "text_model.{}".format, id="clip-prefix"),
        pytest.param(CLIPTextModel, CLIP, "{}".format, id="clip-none"),
        pytest.param(CLIPTextModelWithProjection, CLIP, lambda key: key.removeprefix("text_model."), id="projection"),
        pytest.param(BertModel, BERT, "bert.{}".format, id="bert-prefix"),
        pytest.param(BertForMaskedLM, BERT, lambda key: key.removeprefix("bert."), id="bert-base"),
        pytest.param(
            BertModel,
            BERT,
            lambda key: key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
            id="bert-gamma",
        ),
    ],
)
def test_a_text_encoder_under_other_names(tmp_path: Path, kind, config, rename: Rename):
    kind(config).save_pretrained(tmp_path)
    rename_in(tmp_path, rename)
    theirs = kind.from_pretrained(tmp_path)
    same_weights(load_module(lambda: kind(config), tmp_path), theirs)


def test_shards_with_a_prefix(tmp_path: Path):
    source = CLIPTextModel(CLIP)
    weight_map = {}
    for number in range(2):
        shard = {f"text_model.{key}": tensor for key, tensor in list(source.state_dict().items())[number::2]}
        save_file(shard, tmp_path / f"model-{number}.safetensors")
        weight_map |= dict.fromkeys(shard, f"model-{number}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    same_weights(load_module(lambda: CLIPTextModel(CLIP), tmp_path), source)


def test_a_name_of_the_models_own_goes_before_one_that_means_the_same(tmp_path: Path):
    source = CLIPTextModel(CLIP)
    tensors = source.state_dict() | {"text_model.final_layer_norm.weight": torch.zeros(8)}
    save_file(tensors, tmp_path / "model.safetensors")
    same_weights(load_module(lambda: CLIPTextModel(CLIP), tmp_path), source)


def test_what_no_name_leads_to_is_still_missed(tmp_path: Path):
    CLIPTextModel(CLIP).save_pretrained(tmp_path)
    rename_in(tmp_path, "vision_model.{}".format)
    with pytest.raises(SafetensorsValidationError, match="in no file"):
        load_module(lambda: CLIPTextModel(CLIP), tmp_path)
