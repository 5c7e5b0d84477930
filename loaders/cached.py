"""load_safetensors_cached: a file that did not change is read once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from typing import NamedTuple

import torch

from .reading.opened import FileStamp, stamp_path
from .robust import Device, PathLike, load_request, request_for
from .strategies.strategy import LoadRequest, LoadResult

_Key = tuple[str, FileStamp, str, LoadRequest]


class _Kept(NamedTuple):
    result: LoadResult
    size_bytes: int


class SafetensorsCache:
    """The last loads, up to `limit_bytes` of memory behind their tensors, least recently used out first. Thread-safe;
    one load per file and request at a time, and whoever asks meanwhile waits for it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._loading: dict[_Key, Future[LoadResult]] = {}

    @property
    def used_bytes(self) -> int:
        with self._lock:
            return self._used_bytes()

    def load(self, request: LoadRequest, strategy: str) -> LoadResult:
        """`request` for one file, from memory when the file is as it was."""
        path = request.paths[0]
        stamp = stamp_path(path)
        key = (os.path.realpath(path), stamp, strategy, request)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].result
            flight = self._loading.get(key)
            owner = flight is None
            if flight is None:
                flight = self._loading[key] = Future()
        if owner:
            self._fly(flight, key, strategy)
        try:
            return flight.result()
        finally:
            # Its error has this frame, which would keep the error and what had been read in a cycle.
            del flight

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _fly(self, flight: Future[LoadResult], key: _Key, strategy: str) -> None:
        try:
            result = load_request(key[-1], strategy)
            kept = _Kept(result, _size_bytes(result))
        except BaseException as error:
            with self._lock:
                del self._loading[key]
            flight.set_exception(error)
            del flight
            return
        with self._lock:
            del self._loading[key]
            if kept.size_bytes <= self.limit_bytes:
                self._kept[key] = kept
            while self._used_bytes() > self.limit_bytes:
                self._kept.popitem(last=False)
        flight.set_result(result)

    def _used_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept.values())


def _size_bytes(result: LoadResult) -> int:
    """Of the memory that the tensors keep: a view keeps all of its buffer, which views of other types share. A mapped
    file counts like any other."""
    spans: set[tuple[str, int, int]] = set()
    for tensor in result.values():
        storage = tensor.untyped_storage()
        # What has no address, as on "meta", takes no memory.
        if start := storage.data_ptr():
            spans.add((str(tensor.device), start, start + storage.nbytes()))
    size_bytes, latest, reached = 0, "", 0
    for device, start, end in sorted(spans):
        reached = max(start, reached) if device == latest else start
        size_bytes += max(0, end - reached)
        latest, reached = device, max(end, reached)
    return size_bytes


def load_safetensors_cached(
    path: PathLike,
    device: Device = "cpu",
    device_map: Mapping[str, object] | None = None,
    strategy: str = "auto",
    *,
    cache: SafetensorsCache,
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """`load_safetensors_robust` through `cache`. The dict is the caller's own, the tensors are shared with every other
    caller: clone before writing to one."""
    return dict(cache.load(request_for([path], device, device_map, dtype), strategy).tensors)
