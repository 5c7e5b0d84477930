"""The device that is measured, and how: medians of rounds in which the contenders take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from warmstack.loaders import CopyDevice, CudaDevice, FakeDevice

Contenders = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Rig:
    """A GPU, or for a rehearsal a device that is not there, where none is."""

    rounds: int
    rehearsal: bool

    @property
    def on_gpu(self) -> bool:
        return torch.cuda.is_available()

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.on_gpu else "cpu")

    def copies(self, streams: int = 1) -> CopyDevice:
        return CudaDevice(streams=streams) if self.on_gpu else FakeDevice(streams=streams, lag=0)

    def finish(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def pinned(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.on_gpu)

    def seconds(self, work: Callable[[], object]) -> float:
        """Until the device has nothing more to do. What `work` returns is freed after the clock has stopped."""
        self.finish()
        started_s = time.perf_counter()
        kept = work()
        self.finish()
        elapsed_s = time.perf_counter() - started_s
        del kept
        return elapsed_s

    def medians_s(self, contenders: Contenders, rounds: int | None = None) -> dict[str, float]:
        """Each once unmeasured, then in turns."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for work in contenders.values():
            self.seconds(work)
        for _ in range(rounds or self.rounds):
            for name, work in contenders.items():
                times[name].append(self.seconds(work))
        return {name: statistics.median(measured) for name, measured in times.items()}
