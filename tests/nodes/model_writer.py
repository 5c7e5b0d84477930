"""Models on disk in every form that the loaders take: in shards, and as GGUF by gguf-py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor], count: int = 2) -> Path:
    """`tensors` in `count` shards; returns their index."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        shard = {key: tensors[key] for key in list(tensors)[number::count]}
        save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    return index


def write_gguf(path: Path, tensors: Mapping[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """`tensors` as GGUF, matrices in the type `kind` ("F16", "Q8_0" ...), the rest in F32; returns what they are worth:
    plain ones in their own dtype, quantised ones rounded to float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "flux")
    worth = {}
    for key, tensor in tensors.items():
        own = gguf.GGMLQuantizationType[kind if tensor.dim() > 1 else "F32"]
        data = gguf.quants.quantize(tensor.float().numpy(), own)
        writer.add_tensor(key, data, raw_dtype=own)
        numbers = torch.from_numpy(np.array(gguf.quants.dequantize(data, own))).reshape(tensor.shape)
        worth[key] = numbers.to({"F32": torch.float32, "BF16": torch.bfloat16}.get(own.name, torch.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return worth
