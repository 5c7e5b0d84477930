"""Gathering: what a strategy has loaded so far, file after file, and what that holds in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import SafetensorsValidationError
from ..files.header import SafetensorsHeader
from ..placing.footprint import worth_copying
from ..system.breather import Breather
from ..telemetry import LoadingMetrics, StageClock
from ..upload.uploads import Uploads
from .placement import on_its_own, place_tensor, require_devices, require_dtypes, send_tensors
from .strategy import LoadRequest, LoadResult

_BREATH_TENSORS = 256


class Gathering:
    """Collects the tensors of a request and counts the memory they take. Not thread-safe. SafetensorsLoadError when a
    header that the request brings has tensors for a device that is not there, or that cannot be cast."""

    def __init__(self, request: LoadRequest, clock: StageClock | None = None) -> None:
        self.clock = StageClock() if clock is None else clock
        self._request = request
        self._uploads = Uploads()
        self._tensors: dict[str, torch.Tensor] = {}
        self._metadata: dict[str, Mapping[str, str]] = {}
        self._loaded_bytes = 0
        self._held_bytes = 0
        self._peak_bytes = 0
        for header in request.headers.values():
            self._require_possible(header)

    def header(self, path: str) -> SafetensorsHeader:
        """The header of `path`, which belongs to the result from now on. SafetensorsLoadError when a device that its
        tensors go to is not there, or one cannot be cast."""
        with self.clock.stage("header"):
            header = self._request.header(path)
        if path not in self._request.headers:
            self._require_possible(header)
        self.include(path, header.metadata)
        return header

    def _require_possible(self, header: SafetensorsHeader) -> None:
        self.require_devices(header.path, header.tensors)
        require_dtypes(header, self.wanted(header), self._request.dtype)

    def require_devices(self, path: str, keys: Mapping[str, object]) -> None:
        """Before they are read: SafetensorsLoadError when a device that `keys` go to is not there."""
        if self._request.copies:
            require_devices(path, self._request.devices(keys), self._uploads)

    def include(self, path: str, metadata: Mapping[str, str]) -> None:
        """Count `path` among the files of the result."""
        self._metadata[path] = metadata

    def wanted(self, header: SafetensorsHeader) -> list[str]:
        """The keys of `header` that are to be loaded, in the order of the file."""
        return list(self._request.devices(header.tensors))

    def add(
        self,
        path: str,
        sources: Mapping[str, torch.Tensor],
        *,
        buffer_bytes: int = 0,
        waiting_bytes: int = 0,
        mapped: bool = False,
    ) -> None:
        """Place those of `sources` that the request wants; LoadCancelledError between two of them.

        `buffer_bytes` is the private memory behind all of them; `waiting_bytes` is what the strategy has read and not
        yet handed over. `mapped` sources are read from the disk only now, if they are copied at all."""
        devices = self._request.devices(sources)
        twice = next((key for key in devices if key in self._tensors), None)
        if twice is not None:
            raise SafetensorsValidationError(path, "stands in two of the files; remove one", twice)
        with self.clock.stage("place"):
            copied_bytes = self._place(path, sources, devices, mapped)
            if buffer_bytes and self._request.copies:
                copied_bytes += self._let_go(path, sources, devices)
        self._loaded_bytes += sum(sources[key].nbytes for key in devices)
        self._peak_bytes = max(self._peak_bytes, self._held_bytes + buffer_bytes + waiting_bytes + copied_bytes)
        keeps = any(self._tensors[key] is sources[key] and sources[key].nbytes for key in devices)
        self._held_bytes += copied_bytes + (buffer_bytes if keeps else 0)

    def _place(self, path: str, sources: Mapping[str, torch.Tensor], devices: Mapping[str, str], mapped: bool) -> int:
        """Bytes on the CPU of the tensors that are not what was read."""
        if not self._request.copies:
            self._request.pace.allow(path, 0)
            self._tensors |= {key: sources[key] for key in devices}
            return 0
        copied_bytes = 0
        breather = Breather()
        request = self._request
        sent = send_tensors(path, sources, devices, request.dtype, self._uploads, request.pace.ask)
        there_already = {devices[key] for key in devices.keys() - sent.keys()}
        for step, (key, device) in enumerate(devices.items()):
            if step % _BREATH_TENSORS == 0:
                breather.breathe()
            source = sources[key]
            self._request.pace.allow(path, source.nbytes if mapped else 0)
            tensor = sent.pop(key, None)
            if tensor is None:
                tensor = place_tensor(path, key, source, device, self._request.dtype)
            self._tensors[key] = tensor
            if tensor is not source:
                copied_bytes += tensor.nbytes if tensor.device.type == "cpu" else 0
                if mapped:
                    self._request.pace.report(path, source.nbytes, key)
        for device in filter(self._uploads.takes, there_already):
            # Its tensors were computed there, perhaps not yet.
            self._uploads.follow(device)
        return copied_bytes

    def _let_go(self, path: str, sources: Mapping[str, torch.Tensor], devices: Mapping[str, str]) -> int:
        """Give those that stayed as they were read memory of their own, if that frees the others'; the bytes of it."""
        kept = {key: sources[key] for key in devices if self._tensors[key] is sources[key]}
        kept_bytes = sum(tensor.nbytes for tensor in kept.values())
        if not worth_copying(kept_bytes, sum(sources[key].nbytes for key in devices)):
            return 0
        own = {key: on_its_own(path, key, tensor) for key, tensor in kept.items()}
        self._tensors |= own
        return sum(tensor.nbytes for key, tensor in own.items() if tensor is not kept[key])

    def result(self, strategy: str) -> LoadResult:
        """What was gathered, every byte in its place."""
        with self.clock.stage("place"):
            self._uploads.close()
        metrics = LoadingMetrics(
            strategy=strategy,
            files=len(self._metadata),
            tensors=len(self._tensors),
            loaded_bytes=self._loaded_bytes,
            peak_bytes=self._peak_bytes,
            duration_s=self.clock.elapsed_s(),
            stages_s=self.clock.stages_s,
        )
        metadata = next(iter(self._metadata.values()), {})
        return LoadResult(self._tensors, metadata, metrics)
