"""RunReport: one pass over a queue, and how two passes compare. Immutable, JSON-able, no paths but file names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..lora.cache.cache_stats import CacheSnapshot
from ..lora.device.shelf_stats import ShelfSnapshot
from .application import AppliedLora


class RequestReport(NamedTuple):
    """One request, or one malformed line."""

    id: str
    line: int
    prompt: str = ""
    image: str = ""
    """File name in the run's folder; "" when there is no picture."""
    loras: tuple[AppliedLora, ...] = ()
    seconds: float = 0.0
    apply_s: float = 0.0
    problems: tuple[str, ...] = ()
    """Why there is no picture, a line each."""
    expected: bool = True
    """False when something other than the request itself is at fault: the pipeline, the disk, memory."""
    ran: bool = True
    """False when the queue was interrupted before."""

    @property
    def wait_s(self) -> float:
        return sum(lora.wait_s for lora in self.loras)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for lora in self.loras for note in lora.notes)

    def as_json(self) -> dict[str, object]:
        return {
            **self._asdict(),
            "loras": [lora.as_json() for lora in self.loras],
            "problems": list(self.problems),
            "wait_s": self.wait_s,
            "notes": list(self.notes),
        }


class RunReport(NamedTuple):
    """One pass over the queue."""

    mode: str
    requests: tuple[RequestReport, ...]
    seconds: float
    cache: CacheSnapshot
    """At the end of the pass."""
    device: ShelfSnapshot | None = None
    """Likewise; None when no adapters were kept on the device."""

    @property
    def failures(self) -> tuple[RequestReport, ...]:
        return tuple(request for request in self.requests if request.problems)

    @property
    def wait_s(self) -> float:
        return sum(request.wait_s for request in self.requests)

    def as_json(self) -> dict[str, object]:
        stats = self.cache.stats
        return {
            "mode": self.mode,
            "seconds": self.seconds,
            "totals": {
                "requests": len(self.requests),
                "failures": len(self.failures),
                "not_run": sum(not request.ran for request in self.requests),
                "wait_s": self.wait_s,
                "wait_p50_s": stats.waits.quantile_s(0.5),
                "wait_p99_s": stats.waits.quantile_s(0.99),
                "load_s": stats.load_s,
                "hidden_share": stats.hidden_share,
                "hits": stats.hits,
                "joins": stats.joins,
                "misses": stats.misses,
                "read_bytes": stats.read_bytes,
                "wasted_bytes": stats.wasted_bytes,
                "peak_bytes": self.cache.peak_bytes,
                "limit_bytes": self.cache.limit_bytes,
            },
            "device": None if self.device is None else _device_json(self.device),
            "requests": [request.as_json() for request in self.requests],
        }


def _device_json(device: ShelfSnapshot) -> dict[str, object]:
    return {
        "name": device.device,
        "limit_bytes": device.limit_bytes,
        "peak_bytes": device.peak_bytes,
        "problem": device.problem,
        **device.stats._asdict(),
    }


class ImageComparison(NamedTuple):
    """The pictures of two passes, byte by byte."""

    compared: int
    different: tuple[str, ...]
    """Names of those that differ or that only one pass has."""

    @property
    def identical(self) -> bool:
        return not self.different


def compare_images(left: Path, right: Path, names: Collection[str]) -> ImageComparison:
    """Compares the files `names` of two folders; one that cannot be read is different."""
    return ImageComparison(len(names), tuple(sorted(n for n in names if not _same_bytes(left / n, right / n))))


def _same_bytes(left: Path, right: Path) -> bool:
    try:
        return left.read_bytes() == right.read_bytes()
    except OSError:
        return False
