"""Which base model a diffusion model's file holds, from the names and shapes of its tensors: the names are those that
`base_model_of` has for LoRAs, so that the two can be compared."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ...loaders.files.checkpoint import checkpoint_format
from ...loaders.files.header import SafetensorsHeader, read_header
from ...loaders.files.shards import check_shards, read_index
from ...loaders.gguf.header import read_gguf_header
from .base_model import UNETS, BaseModel, first_answer, written_base_model

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]


def read_base_model(path: str | os.PathLike[str]) -> BaseModel:
    """Of a safetensors or GGUF file or an index of shards; headers alone are read. Nothing is told of pickled files.

    SafetensorsLoadError when a header is invalid or a file is not there."""
    name = os.fspath(path)
    kind = checkpoint_format(name)
    if kind == "pickle":
        return BaseModel()
    if kind == "gguf":
        return model_base_of({key: entry.shape for key, entry in read_gguf_header(name).tensors.items()}, {})
    headers = _shards(name) if kind == "index" else (read_header(name),)
    shapes = {key: entry.shape for header in headers for key, entry in header.tensors.items()}
    return model_base_of(shapes, headers[0].metadata if headers else {})


def _shards(name: str) -> tuple[SafetensorsHeader, ...]:
    index = read_index(name)
    folder = os.path.dirname(name)
    files = sorted({os.path.join(folder, shard) for shard in index.weight_map.values()})
    return tuple(check_shards(files, index).values())


def model_base_of(shapes: Shapes, metadata: Mapping[str, str]) -> BaseModel:
    """The tensors count first: metadata outlives merges and conversions. `name` is "" when neither is certain."""
    return first_answer(_RULES, _Weights(shapes)) or written_base_model(metadata) or BaseModel()


class _Weights:
    """Weights by the end of their names: a checkpoint puts `model.diffusion_model.` in front."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._names = "\n" + "\n".join(shapes)

    def has(self, pattern: str) -> bool:
        return re.search(rf"[.\n]{pattern}", self._names) is not None

    def shape(self, pattern: str) -> Shape:
        """Of the first whose name ends so; () when there is none."""
        found = re.search(rf"\n((?:.*\.)?{pattern})(?=\n|$)", self._names)
        return self._shapes[found[1]] if found else ()


def _unet(weights: _Weights) -> BaseModel | None:
    shape = weights.shape(r"(?:input_blocks|down_blocks)\.[0-9.]+(?:attentions\.[0-9.]+)?"
                          r"transformer_blocks\.[0-9]+\.attn2\.to_k\.weight")  # fmt: skip
    if len(shape) != 2:
        return None
    # Video U-Nets and those behind another text encoder read as many features as their relatives.
    if weights.has(r".*(?:time_stack|temporal_transformer_blocks)") or weights.has("encoder_hid_proj"):
        return BaseModel()
    # Not the metadata either: the refiner of SDXL calls itself one.
    return BaseModel(UNETS[shape[1]], f"attn2.to_k reads {shape[1]} features") if shape[1] in UNETS else BaseModel()


def _double_blocks(weights: _Weights) -> BaseModel | None:
    if weights.has(r"double_stream_blocks\."):
        return BaseModel("hidream", "keys double_stream_blocks")
    if not weights.has(r"double_blocks\.[0-9]"):
        return None
    if weights.has("double_stream_modulation_img"):
        return BaseModel("flux2", "keys double_stream_modulation")
    if weights.has("distilled_guidance_layer"):
        return BaseModel("chroma", "keys distilled_guidance_layer")
    if weights.has(r"txt_in\.individual_token_refiner"):
        video = len(weights.shape(r"img_in\.proj\.weight")) == 5
        return BaseModel("hunyuan-video", "keys individual_token_refiner, patches with a time") if video else None
    if weights.shape(r"txt_in\.weight") == (3072, 4096) and not weights.has(r"connector\."):
        return BaseModel("flux", "double_blocks behind a txt_in of 4096 features")
    return None


def _joint_blocks(weights: _Weights) -> BaseModel | None:
    if weights.has(r"joint_blocks\.[0-9]+\.context_block\."):
        return BaseModel("sd3", "keys joint_blocks")
    if weights.has(r"transformer_blocks\.[0-9]+\.img_mod\.") and weights.shape(r"txt_in\.weight") == (3072, 3584):
        return BaseModel("qwen-image", "transformer_blocks behind a txt_in of 3584 features")
    return None


def _wan(weights: _Weights) -> BaseModel | None:
    if weights.has(r"blocks\.[0-9]+\.cross_attn\.q\.weight") and weights.has(r"head\.modulation"):
        return BaseModel("wan", "keys blocks with cross_attn.q, head.modulation")
    return None


def _lumina_like(weights: _Weights) -> BaseModel | None:
    known = {(3840, 2560): "z-image", (2304, 2304): "lumina2"}
    shape = weights.shape(r"cap_embedder\.1\.weight")
    if shape not in known:
        return None
    return BaseModel(known[shape], f"cap_embedder from {shape[1]} to {shape[0]} features")


def _ltx(weights: _Weights) -> BaseModel | None:
    if weights.has(r"patchify_proj\.") and weights.has(r"transformer_blocks\.[0-9]+\.attn1\."):
        return BaseModel("ltx-video", "keys patchify_proj")
    return None


_RULES: tuple[Callable[[_Weights], BaseModel | None], ...] = (
    _unet,
    _double_blocks,
    _joint_blocks,
    _wan,
    _lumina_like,
    _ltx,
)
