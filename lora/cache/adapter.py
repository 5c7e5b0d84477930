"""Adapter: the tensors of one LoRA file, in one buffer, and what was prepared from them."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, MutableMapping
from dataclasses import dataclass, field

import torch

from ...loaders.cancelling import Cancelled, never
from ...loaders.errors import LoadCancelledError, SafetensorsLoadError
from ...loaders.files.header import read_header
from ...loaders.files.pickled import load_pickled
from ...loaders.memory.spare_memory import SpareMemory
from ...loaders.reading.mapped import map_tensors
from ...loaders.reading.private import allocate, read_tensors
from ...loaders.reading.tensor_file import Storage
from ...loaders.reading.views import Buffer, PrivateBuffer
from ...loaders.system.page_cache import warm_file
from ...loaders.system.rate_limit import RateLimit
from ..errors import AdapterLoadCancelledError, AdapterLoadError, AdapterUnavailableError
from ..library.file import AdapterKey, LoraFile, as_on_disk

logger = logging.getLogger(__name__)

_ALIGN_BYTES = 64
_CHANGED = "the file has just changed or gone; queue it again"


# No slots: with them, weak references need `weakref_slot`, which Python 3.10 lacks.
@dataclass(frozen=True, eq=False)
class Adapter:
    """One loaded LoRA file. `tensors` alias `buffer`: a clone is what may outlive the lease."""

    key: AdapterKey
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]
    nbytes: int
    """Bytes of all tensors together."""
    storage: Storage
    buffer: Buffer | None
    """Owner of private memory: weakly referable, alive exactly as long as any tensor of the file. None if mapped."""
    prepared: MutableMapping[Hashable, object] = field(default_factory=dict)
    """What a front end derived from the tensors, by its own key (a base model's key map): it dies with the adapter."""


def load_adapter(
    file: LoraFile,
    *,
    cancelled: Cancelled | None = None,
    limiter: RateLimit | None = None,
    storage: Storage = "private",
    spare: SpareMemory | None = None,
) -> Adapter:
    """Reads `file` as the catalog knows it (`file.key`), into private memory or as views of the mapped
    file. `spare` may have the memory.

    Raises AdapterLoadError for what is wrong with the content, AdapterUnavailableError when the file is gone, has
    changed or does not fit into memory, and AdapterLoadCancelledError once `cancelled()` is true. Pickles are read too
    (tensors only): keep them out of background threads.
    """
    cancelled = cancelled or never
    try:
        if file.is_pickle:
            return _unpickle(file, storage)
        return _read(file, cancelled, limiter, storage, spare)
    except (SafetensorsLoadError, MemoryError) as problem:
        logger.debug("loading %s: %s", file.name, problem)
        error = _mapped_error(file, problem)
    # Raised out here, without context: the loader's error names the absolute path, and its frames keep buffers.
    raise error


def _read(
    file: LoraFile, cancelled: Cancelled, limiter: RateLimit | None, storage: Storage, spare: SpareMemory | None
) -> Adapter:
    header = read_header(file.path)
    # Content must never be cached under the identity of an older file.
    if header.stamp != (file.size_bytes, file.mtime_ns):
        raise AdapterUnavailableError(file.name, _CHANGED)
    if storage == "private":
        loaded = read_tensors(file.path, header=header, cancelled=cancelled, limiter=limiter, spare=spare)
    else:
        if cancelled is not never or limiter is not None:
            warm_file(file.path, cancelled=cancelled, limiter=limiter)
        loaded = map_tensors(file.path, header=header, populate=True)
    buffer = loaded.buffer if storage == "private" else None
    return Adapter(file.key, loaded.tensors, loaded.metadata, loaded.nbytes, storage, buffer)


def _unpickle(file: LoraFile, storage: Storage) -> Adapter:
    if as_on_disk(file) != file:
        raise AdapterUnavailableError(file.name, _CHANGED)
    tensors = load_pickled(file.path)
    if any(tensor.layout is not torch.strided or tensor.is_quantized for tensor in tensors.values()):
        raise SafetensorsLoadError(file.path, "holds sparse or quantised tensors; convert it to safetensors")
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    if nbytes > file.size_bytes:
        # Expanded views: copied, they would take more than was reserved for the file.
        raise SafetensorsLoadError(file.path, "holds tensors that share memory; convert it to safetensors")
    if storage == "mapped":
        return Adapter(file.key, tensors, {}, nbytes, storage, None)
    buffer = allocate(file.path, sum(_aligned_bytes(tensor) for tensor in tensors.values()), huge_pages=False)
    copies = _copies_in(buffer, tensors)
    # `tensors` are the file's own pages: what was written into it meanwhile is in the copies.
    if as_on_disk(file) != file:
        raise AdapterUnavailableError(file.name, _CHANGED)
    return Adapter(file.key, copies, {}, nbytes, storage, buffer)


def _copies_in(buffer: PrivateBuffer, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    memory = torch.frombuffer(buffer, dtype=torch.uint8)
    copies: dict[str, torch.Tensor] = {}
    start = 0
    for key, tensor in tensors.items():
        raw = memory[start : start + tensor.nbytes]
        copies[key] = raw.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
        start += _aligned_bytes(tensor)
    return copies


def _aligned_bytes(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _mapped_error(file: LoraFile, problem: SafetensorsLoadError | MemoryError) -> AdapterLoadError:
    if isinstance(problem, MemoryError):
        return AdapterUnavailableError(file.name, f"{file.size_bytes} bytes of memory are not there; free some")
    if isinstance(problem, LoadCancelledError):
        return AdapterLoadCancelledError(file.name, "cancelled")
    if isinstance(problem.__cause__, OSError | OverflowError) or as_on_disk(file) != file:
        return AdapterUnavailableError(file.name, problem.reason)
    return AdapterLoadError(file.name, problem.reason)
