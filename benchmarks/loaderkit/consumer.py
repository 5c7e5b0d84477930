"""Consumer: somebody who works on tensor after tensor and keeps none, fed by a stream or by a load of the whole."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from warmstack.loaders import ModelLoader, Pace, drop_file, read_header, stream_tensors

_WINDOW_BYTES = 256 << 20


def measure_consumer(path: str, rounds: int) -> dict[str, Any]:
    """feed -> seconds until the consumer had its first tensor, and until it was done with the last. The page cache is
    cold; the work is a norm in float32, which takes about as long as the disk does."""
    found: dict[str, Any] = {name: {"first_s": [], "done_s": []} for name in ("streaming", "auto")}
    for _ in range(rounds):
        for name, feed in (("streaming", _streamed(path)), ("auto", _whole(path))):
            drop_file(path)
            first_s, done_s = _consume(feed)
            found[name]["first_s"].append(first_s)
            found[name]["done_s"].append(done_s)
    return found


def medians(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: statistics.median(values) for key, values in row.items()} for name, row in found.items()}


def _streamed(path: str) -> Iterator[torch.Tensor]:
    header = read_header(path)
    for arrived in stream_tensors([(header, list(header.tensors))], Pace(), max_bytes=_WINDOW_BYTES):
        yield arrived.tensor


def _whole(path: str) -> Iterator[torch.Tensor]:
    yield from ModelLoader().load_shards([path]).values()


def _consume(feed: Iterable[torch.Tensor]) -> tuple[float, float]:
    started_s = time.perf_counter()
    first_s = 0.0
    for tensor in feed:
        first_s = first_s or time.perf_counter() - started_s
        tensor.float().norm()
    return first_s, time.perf_counter() - started_s
