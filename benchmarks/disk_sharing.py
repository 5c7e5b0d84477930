"""Who waits for whom on a disk: a job put in front of the queue, and the running job beside background reads.

    python benchmarks/disk_sharing.py [--folder DIR] [--job-mib 3072] [--loras 24] [--repeats 5] [--out FILE]

Front: a simulated disk of 100 MB/s that reads one chunk after the other. A 400 MB file is being read; half a second
later a job with a 100 MB file is put in front. Its wait is compared with that for the whole first file, and every byte
that the disk has delivered is counted.

Beside: real cold files in DIR. The running job reads one of --job-mib MiB while the queue wants --loras files of 128
MiB; alone, beside background reads that pay no regard, and beside those that yield. Medians, and ratios to alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from written import write_report

from warmstack.loaders.system.page_cache import drop_file
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.prefetcher import Prefetcher
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.settings import PrefetchSettings

MIB = 1 << 20
DISK_BYTES_PER_S = 100_000_000
CHUNK_BYTES = 8 * MIB
FAR_BYTES, NEAR_BYTES = 400_000_000, 100_000_000
HEAD_START_S = 0.5
LORA_BYTES = 128 * MIB
DEADLINE_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--job-mib", type=int, default=3072)
    parser.add_argument("--loras", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = {
            "front": front(Path(folder) / "front"),
            "beside": beside(Path(folder) / "beside", options.job_mib * MIB, options.loras, options.repeats),
        }
    write_report(report, options.out)
    return 0


class SimulatedDisk:
    """One chunk at a time, whoever asks."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.done: dict[str, float] = {}
        self.begun = threading.Event()
        self._head = threading.Lock()

    def warm_file(self, path: str, *, cancelled: Callable[[], bool], limiter: Any = None) -> int:
        left_bytes = size_bytes = os.stat(path).st_size
        while left_bytes:
            nbytes = min(CHUNK_BYTES, left_bytes)
            limiter.spend(nbytes, cancelled)
            self.begun.set()
            with self._head:
                time.sleep(nbytes / DISK_BYTES_PER_S)
                self.read_bytes += nbytes
            left_bytes -= nbytes
        self.done[os.path.basename(path)] = time.monotonic()
        return size_bytes


def front(folder: Path) -> dict[str, float]:
    for name, nbytes in (("far", FAR_BYTES), ("near", NEAR_BYTES)):
        write_lora(folder / f"{name}.safetensors", nbytes, sparse=True)
    disk, queue = SimulatedDisk(), [QueuedJob("far", graph("far"))]
    machine = Machine(warm_file=disk.warm_file, resident_bytes=lambda path: 0)
    with prefetching(folder, queue, PrefetchSettings(headroom_bytes=0), machine) as prefetcher:
        assert disk.begun.wait(DEADLINE_S)
        time.sleep(HEAD_START_S)
        started_s = time.monotonic()
        queue.insert(0, QueuedJob("near", graph("near")))
        prefetcher.wake()
        wait_until(lambda: len(disk.done) == 2)
    waited_s = disk.done["near.safetensors"] - started_s
    own_s, far_s = NEAR_BYTES / DISK_BYTES_PER_S, FAR_BYTES / DISK_BYTES_PER_S
    return {
        "wait_s": round(waited_s, 2),
        "wait_for_whole_file_s": (whole_s := round(far_s - HEAD_START_S + own_s, 2)),
        "ratio": round(waited_s / whole_s, 3),
        "bytes_read_share": round(disk.read_bytes / (FAR_BYTES + NEAR_BYTES), 3),
    }


def beside(folder: Path, job_bytes: int, loras: int, repeats: int) -> dict[str, Any]:
    names = [f"l{i}" for i in range(loras)]
    for name in names:
        write_lora(folder / "loras" / f"{name}.safetensors", LORA_BYTES)
    job_file = folder / "model"
    write(job_file, b"", job_bytes)
    modes: dict[str, PrefetchSettings] = {
        "alone": PrefetchSettings(enabled=False),
        "no_regard": PrefetchSettings(headroom_bytes=0, just_in_time=False, yield_to_job=False),
        "yielding": PrefetchSettings(headroom_bytes=0, just_in_time=False),
    }
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(repeats):
        for mode, settings in modes.items():
            for path in (job_file, *(folder / "loras").iterdir()):
                drop_file(path)
            seconds[mode].append(job_read_s(folder / "loras", job_file, names, settings))
    medians = {mode: statistics.median(values) for mode, values in seconds.items()}
    return {
        "job_mib": job_bytes // MIB,
        "seconds": {mode: [round(value, 2) for value in values] for mode, values in seconds.items()},
        "ratio_to_alone": {mode: round(median / medians["alone"], 2) for mode, median in medians.items()},
    }


def job_read_s(folder: Path, job_file: Path, names: list[str], settings: PrefetchSettings) -> float:
    queue = [QueuedJob("running", graph(), running=True), *(QueuedJob(name, graph(name)) for name in names)]
    with prefetching(folder, queue, settings) as prefetcher:
        if settings.enabled:
            wait_until(lambda: any(fetch.bytes_done for fetch in prefetcher.status().in_flight))
        buffer = bytearray(CHUNK_BYTES)
        started_s = time.monotonic()
        with open(job_file, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        return time.monotonic() - started_s


@contextmanager
def prefetching(
    folder: Path, queue: list[QueuedJob], settings: PrefetchSettings, machine: Machine | None = None
) -> Iterator[Prefetcher]:
    """A prefetcher on a loop in a thread of its own, as in the server."""
    prefetcher = Prefetcher(
        jobs=lambda: tuple(queue),
        catalog=LoraCatalog(lambda: [str(folder)]),
        cache=AdapterCache(ByteBudget(0)),
        settings=settings,
        machine=machine,
    )
    thread = threading.Thread(target=lambda: asyncio.run(prefetcher.run()))
    thread.start()
    try:
        yield prefetcher
    finally:
        prefetcher.close()
        thread.join()


def graph(*names: str) -> dict[str, Any]:
    return {
        str(i): {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": name, "strength_model": 1.0}}
        for i, name in enumerate(names)
    }


def write_lora(path: Path, nbytes: int, *, sparse: bool = False) -> None:
    header = {"lora_unet_x.lora_up.weight": {"dtype": "U8", "shape": [nbytes], "data_offsets": [0, nbytes]}}
    text = json.dumps(header).encode()
    write(path, len(text).to_bytes(8, "little") + text, nbytes, sparse=sparse)


def write(path: Path, head: bytes, nbytes: int, *, sparse: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(head)
        if sparse:
            file.truncate(len(head) + nbytes)
            return
        block = os.urandom(CHUNK_BYTES)
        for _ in range(nbytes // CHUNK_BYTES):
            file.write(block)
        os.fsync(file.fileno())


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_true():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the prefetcher does not get on")
        time.sleep(0.002)


if __name__ == "__main__":
    raise SystemExit(main())
