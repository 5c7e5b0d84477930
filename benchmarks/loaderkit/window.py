"""Window: the memory that tensors take while they stream through and nobody keeps them."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from warmstack.loaders import Pace, read_header, stream_tensors

_SAMPLE_S = 0.0005


def measure_window(path: str, bounds: tuple[int, ...] = (32 << 20, 256 << 20)) -> list[dict[str, Any]]:
    """For each bound: anonymous memory of the process at its highest, above what it was before, in bytes."""
    header = read_header(path)
    largest_bytes = max(entry.end - entry.start for entry in header.tensors.values())
    rows = []
    for bound_bytes in bounds:
        before_bytes, highest, done = _anonymous_bytes(), [0], threading.Event()

        def watch(highest: list[int] = highest, done: threading.Event = done) -> None:
            while not done.is_set():
                highest.append(_anonymous_bytes())
                time.sleep(_SAMPLE_S)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for arrived in stream_tensors([(header, list(header.tensors))], Pace(), max_bytes=bound_bytes):
            del arrived
        done.set()
        watcher.join()
        peak_bytes = max(highest) - before_bytes
        rows.append({"max_bytes": bound_bytes, "largest_tensor_bytes": largest_bytes, "peak_bytes": peak_bytes})
    return rows


def _anonymous_bytes() -> int:
    with open(f"/proc/{os.getpid()}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
