"""The contenders: our strategies, the loaders that others use, the floors of the machine."""

from __future__ import annotations

from .contender import Contender

_ONE = ("lora", "batch", "small", "checkpoint")
_MANY = ("lora", "batch", "small", "checkpoint", "shards", "cast")
_PARTS = ("subset", "shards_subset")
_ALL = (*_MANY, *_PARTS)
_WHOLE = ("lora", "batch", "checkpoint", "shards")
_KEPT = ("lora", "batch", "small", *_PARTS)
"""Memory of an earlier load serves these: nobody keeps that of a checkpoint for the next one."""
_PICKLED = ("lora", "checkpoint")

CONTENDERS = (
    Contender("auto", "private", "ours:auto", _ALL, ours=True),
    Contender("auto, fresh memory", "private", "ours:auto-fresh-memory", _KEPT, ours=True),
    Contender("eager", "private", "ours:eager", _MANY, ours=True),
    Contender("fast_single_file", "private", "ours:fast_single_file", _ONE, ours=True),
    Contender("parallel", "private", "ours:parallel", ("shards", "cast"), ours=True),
    Contender("parallel_async_lazy", "private", "ours:parallel_async_lazy", _ALL, ours=True),
    Contender("streaming", "private", "ours:streaming", _ALL, ours=True),
    Contender("lazy", "views", "ours:lazy", _ALL, ours=True),
    Contender("lazy, populate", "views", "ours:lazy-populated", _ALL, ours=True),
    Contender("read_tensors", "private", "ours:read_tensors_small_pages", ("lora", "batch"), ours=True),
    Contender("safetensors load_file", "views", "theirs:load_file"),
    Contender("safetensors load_file, pread", "private", "theirs:load_file_pread", _WHOLE),
    Contender("safetensors safe_open", "views", "theirs:safe_open", ("lora", *_PARTS)),
    Contender("safetensors safe_open, cloned", "private", "theirs:safe_open_clone"),
    Contender("ComfyUI load_torch_file", "views", "theirs:comfyui", host=True),
    Contender("ComfyUI, --disable-mmap", "private", "theirs:comfyui_without_mmap", host=True),
    Contender("torch.load", "private", "theirs:torch_load", _PICKLED),
    Contender("torch.load, mmap", "views", "theirs:torch_load_mmap", _PICKLED),
    Contender("fastsafetensors", "private", "theirs:fastsafetensors"),
    Contender("Run:ai Model Streamer", "private", "theirs:runai_model_streamer"),
    Contender("InstantTensor", "private", "theirs:instanttensor"),
    Contender("floor: memcpy, 2 threads", "floor", "floors:memcpy-2-threads"),
    Contender("floor: direct reads, 4 threads", "floor", "floors:direct-4-threads", ("lora", *_PARTS)),
    Contender("floor: direct reads, 8 threads", "floor", "floors:direct-8-threads"),
    Contender("floor: direct reads, 12 threads", "floor", "floors:direct-12-threads"),
)
