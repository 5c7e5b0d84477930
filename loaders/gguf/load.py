"""A GGUF file as tensors: dequantised on the way, or as packed as it is."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import FileIO

import numpy as np
import torch

from ..errors import SafetensorsLoadError
from ..reading.filling import Pace, fill, read_at
from ..reading.flat_views import TensorSpec
from ..reading.opened import open_raw, reading, require_stamp
from ..reading.private import allocate
from ..system import kernel
from ..telemetry import LoadingMetrics, StageClock
from ..transfer import DeviceTransfer
from ..upload.cuda_device import CudaDevice
from ..upload.upload_source import FileSource
from .chunks import CHUNK_ELEMENTS, chunk_spans, drain
from .header import GgufEntry, GgufHeader, read_gguf_header
from .on_numpy import refusal, write_values
from .on_torch import dequantise_tensor
from .packed import PackedTensor

_STORED = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}  # fmt: skip
_SCRATCH_BYTES = 16 * CHUNK_ELEMENTS
"""What one thread needs to dequantise a chunk: its bytes, numbers, scales and table indices."""

_MOST_THREADS = 8
"""Each takes 4 MiB of scratch memory, and a few saturate a disk."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedGguf:
    """What was selected of a GGUF file, either here or there, in the order of the header."""

    tensors: dict[str, torch.Tensor]
    """In private memory, or on the device."""
    packed: dict[str, PackedTensor]
    header: GgufHeader
    metrics: LoadingMetrics


def load_gguf(
    path: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    select: Collection[str] | None = None,
    *,
    header: GgufHeader | None = None,
    pace: Pace | None = None,
    transfer: DeviceTransfer | None = None,
) -> LoadedGguf:
    """The tensors named in `select`, or all of them, by `threads`: one for each core that the process may use, at most
    8, if nobody says otherwise.

    With a floating-point `dtype`, quantised tensors are computed in float32 and rounded to it; types that nothing
    dequantises stay packed and say so. Without, they all stay packed, and plain tensors are what the file has. Whole
    numbers are never cast. On another device than the CPU, packed bytes are sent and dequantised there; a GPU gets them
    through `transfer`, or one made for this load, straight from the file, for the caller's current stream.

    Raises LoadCancelledError between two chunks, and SafetensorsLoadError when the file changes while it is read."""
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"{dtype} is no floating-point dtype")
    clock = StageClock()
    with clock.stage("header"):
        header = read_gguf_header(path) if header is None else header
        keys = _selected(header, select)
    place = torch.device(device)
    with ExitStack() as stack, open_raw(header.path) as file, clock.stage("read"):
        require_stamp(header.path, file, header.stamp)
        if transfer is None and place.type == "cuda":
            # Its end waits for the last copy.
            transfer = stack.enter_context(DeviceTransfer(CudaDevice(place)))
        threads = min(kernel.cores(), _MOST_THREADS) if threads is None else threads
        loading = _Loading(header, file, dtype, place, threads, pace or Pace(), transfer)
        for key in keys:
            loading.add(key, header.tensors[key])
        require_stamp(header.path, file, header.stamp)
    return LoadedGguf(loading.tensors, loading.packed, header, loading.metrics(clock))


def _selected(header: GgufHeader, select: Collection[str] | None) -> list[str]:
    if select is None:
        return list(header.tensors)
    wanted = set(select)
    if absent := sorted(wanted - header.tensors.keys()):
        raise SafetensorsLoadError(header.path, f"holds no {absent[0]!r} ({len(absent)} of the names are not there)")
    return [key for key in header.tensors if key in wanted]


@dataclass(slots=True)
class _Loading:
    header: GgufHeader
    file: FileIO
    dtype: torch.dtype | None
    device: torch.device
    threads: int
    pace: Pace
    transfer: DeviceTransfer | None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    packed: dict[str, PackedTensor] = field(default_factory=dict)
    loaded_bytes: int = 0
    result_bytes: int = 0
    scratch_bytes: int = 0
    mapping: mmap.mmap | None = None

    def add(self, key: str, entry: GgufEntry) -> None:
        self.loaded_bytes += entry.end - entry.start
        reason = self._stays_packed(entry)
        if reason:
            self.packed[key] = self._keep(key, entry, reason)
            return
        tensor = self._load(entry)
        self.tensors[key] = tensor
        self.result_bytes += tensor.nbytes if tensor.is_cpu else 0

    def metrics(self, clock: StageClock) -> LoadingMetrics:
        count = len(self.tensors) + len(self.packed)
        peak_bytes = self.result_bytes + self.scratch_bytes
        return LoadingMetrics("gguf", 1, count, self.loaded_bytes, peak_bytes, clock.elapsed_s(), clock.stages_s)

    def _stays_packed(self, entry: GgufEntry) -> str:
        if entry.type.plain:
            return ""
        return "kept as the file has it, since no dtype was asked for" if self.dtype is None else refusal(entry.type)

    def _load(self, entry: GgufEntry) -> torch.Tensor:
        stored = _STORED.get(entry.type.name)
        if stored is not None and (self.dtype in (None, stored) or not stored.is_floating_point):
            return self._there(entry).view(stored).reshape(entry.shape)
        if stored is torch.float64:
            # Cast first: MPS has no float64.
            data = self._raw(entry) if self.transfer is None else self._there(entry)
            return data.view(stored).reshape(entry.shape).to(self.dtype).to(self.device)
        dtype = self.dtype or torch.float32
        if self._stays_here:
            return self._values(entry, dtype)
        return dequantise_tensor(self._there(entry), entry.type, entry.shape, dtype, cancelled=self.pace.ask)

    def _keep(self, key: str, entry: GgufEntry, reason: str) -> PackedTensor:
        if not self._stays_here:
            data = self._there(entry)
        elif entry.start == entry.end:
            data = torch.empty(0, dtype=torch.uint8, device="cpu")
        else:
            if self.mapping is None:
                with reading(self.header.path):
                    self.mapping = kernel.map_privately(self.file.fileno())
            start = self.header.data_start + entry.start
            data = torch.frombuffer(self.mapping, dtype=torch.uint8, count=entry.end - entry.start, offset=start)
        return PackedTensor(key, entry.type, entry.shape, data, reason)

    @property
    def _stays_here(self) -> bool:
        return self.transfer is None and self.device.type == "cpu"

    def _there(self, entry: GgufEntry) -> torch.Tensor:
        """The bytes of a tensor on the device."""
        nbytes = entry.end - entry.start
        if self.transfer is None or not nbytes:
            return self._raw(entry).to(self.device)
        path, offset = self.header.path, self.header.data_start + entry.start
        specs = {"": TensorSpec(torch.uint8, (nbytes,), 0, nbytes)}
        source = FileSource(path, self.file, offset, nbytes, specs, self.pace)
        upload = self.transfer.send(path, source, cancelled=self.pace.ask)
        if not upload.on_device:
            raise SafetensorsLoadError(path, f"{upload.reasons[-1]}; free some there")
        return upload.use()[""]

    def _raw(self, entry: GgufEntry) -> torch.Tensor:
        """The bytes of a tensor in private memory."""
        data = self._empty(entry.end - entry.start, torch.uint8)
        if data.numel():
            span = (data.numpy().data, self.header.data_start + entry.start)
            fill(self.header.path, self.file, [span], self.pace, threads=self.threads)
        self.scratch_bytes = max(self.scratch_bytes, data.nbytes)
        return data

    def _values(self, entry: GgufEntry, dtype: torch.dtype) -> torch.Tensor:
        """The numbers of a tensor, each chunk read and dequantised by one of the threads."""
        kind, path = entry.type, self.header.path
        count = (entry.end - entry.start) // kind.block_bytes
        values = self._empty(count * kind.block_elements, dtype).view(count, kind.block_elements)

        def convert(span: tuple[int, int]) -> None:
            first, end = span
            raw = np.empty((end - first, kind.block_bytes), np.uint8)
            self.pace.allow(path, raw.nbytes)
            offset = self.header.data_start + entry.start + first * kind.block_bytes
            read_at(path, self.file, raw.data.cast("B"), offset)
            _write(raw, entry, values[first:end])
            self.pace.report(path, raw.nbytes, offset + raw.nbytes)

        chunks = list(chunk_spans(count, kind))
        # Without preadv a read moves the one position of the file, which threads cannot share.
        threads = max(1, min(self.threads, len(chunks))) if hasattr(os, "preadv") else 1
        self.scratch_bytes = max(self.scratch_bytes, threads * _SCRATCH_BYTES)
        drain(chunks, convert, threads)
        return values.reshape(entry.shape)

    def _empty(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        if count == 0:
            return torch.empty(0, dtype=dtype, device="cpu")
        return torch.frombuffer(allocate(self.header.path, count * dtype.itemsize), dtype=dtype, count=count)


def _write(raw: np.ndarray[tuple[int, int], np.dtype[np.uint8]], entry: GgufEntry, out: torch.Tensor) -> None:
    if out.dtype == torch.float32:
        write_values(raw, entry.type, out.numpy())
        return
    # torch rounds to float16 more than ten times as fast as numpy, which knows no bfloat16.
    scratch = np.empty(tuple(out.shape), np.float32)
    write_values(raw, entry.type, scratch)
    # Tensors of inference mode take no writes outside of it, and the mode, which ComfyUI runs its nodes in, is the
    # caller's thread's alone.
    with torch.inference_mode(out.is_inference()):
        out.copy_(torch.from_numpy(scratch))
