"""Gathering: what a strategy has loaded so far, file after file, and what that holds in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .errors import SafetensorsValidationError
from .header import SafetensorsHeader
from .placement import place_tensors
from .strategy import LoadRequest, LoadResult
from .telemetry import LoadingMetrics, StageClock


class Gathering:
    """Collects the tensors of a request and counts the memory they take. Not thread-safe."""

    def __init__(self, request: LoadRequest) -> None:
        self.clock = StageClock()
        self._request = request
        self._tensors: dict[str, torch.Tensor] = {}
        self._headers: list[SafetensorsHeader] = []
        self._loaded_bytes = 0
        self._held_bytes = 0
        self._peak_bytes = 0

    def add(self, header: SafetensorsHeader, sources: Mapping[str, torch.Tensor], buffer_bytes: int) -> None:
        """Place those of `sources` that the request wants. `buffer_bytes` is the private memory behind all of them, 0
        when
        they show the mapped file."""
        devices = self._request.devices(sources)
        twice = next((key for key in devices if key in self._tensors), None)
        if twice is not None:
            raise SafetensorsValidationError(header.path, "stands in two of the files; remove one", twice)
        with self.clock.stage("place"):
            placed = place_tensors(header.path, sources, devices, self._request.dtype)
        copied_bytes = sum(
            tensor.nbytes
            for key, tensor in placed.items()
            if tensor is not sources[key] and tensor.device.type == "cpu"
        )
        self._peak_bytes = max(self._peak_bytes, self._held_bytes + buffer_bytes + copied_bytes)
        buffer_stays = any(tensor is sources[key] for key, tensor in placed.items())
        self._held_bytes += copied_bytes + (buffer_bytes if buffer_stays else 0)
        self._loaded_bytes += sum(sources[key].nbytes for key in placed)
        self._headers.append(header)
        self._tensors.update(placed)

    def result(self, strategy: str) -> LoadResult:
        metrics = LoadingMetrics(
            strategy=strategy,
            files=len(self._headers),
            tensors=len(self._tensors),
            loaded_bytes=self._loaded_bytes,
            peak_bytes=self._peak_bytes,
            duration_s=self.clock.elapsed_s(),
            stages_s=self.clock.stages_s,
        )
        return LoadResult(self._tensors, self._headers[0].metadata if self._headers else {}, metrics)
