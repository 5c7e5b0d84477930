"""Uploading one 224 MB LoRA of 2,166 tensors to a GPU, every way, and uploads beside other work.

    python benchmarks/transfer.py [--rounds 9] [--json OUT.json]
    python benchmarks/transfer.py --rehearse    # small, without a GPU too: shows that the script works, no figures

Each clock stops when the device has every byte. "pinned copy" is one large copy from pinned memory, the most that the
link gives, measured in the same rounds; "resident" goes from the adapter's memory through the slots, "file" from the
page cache. "aligned" and "2-byte aligned" are the two kinds of file: scalars between the matrices make every tensor of
the second start anywhere. The bars are for "resident" of the 2-byte aligned file: at least 10 times as fast as `.to()`
of each tensor, and at least 90% of the pinned copy. Also measured: slots, their size and fillers; streams (four uploads
at once); packed GGUF weights; how much of uploads hides behind matrix products; uploads beside a busy interpreter; what
pinning whole adapters would cost. Exits with 1 when a bar fails, 2 without a CUDA device."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
from transferkit.beside import measure_busy_interpreter, measure_overlap, measure_packed, measure_pinning
from transferkit.lora_upload import Lora, measure_staging, measure_streams, measure_ways
from transferkit.rig import Rig
from written import write_report

from warmstack.loaders import DeviceTransfer

BAR_SPEEDUP = 10.0
BAR_LINK = 0.9


def main() -> None:
    options = _options()
    if not (options.rehearse or torch.cuda.is_available()):
        print("benchmarks/transfer.py: torch sees no CUDA device here; nothing was measured", file=sys.stderr)
        sys.exit(2)
    rig = Rig(1 if options.rehearse else options.rounds, options.rehearse)
    with tempfile.TemporaryDirectory() as folder:
        report = _report(rig, Path(folder))
    write_report(report, options.json)
    sys.exit(0 if report["passed"] or options.rehearse else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the report here instead of to stdout")
    parser.add_argument("--rehearse", action="store_true", help="show that the script works where no GPU is")
    return parser.parse_args()


def _report(rig: Rig, folder: Path) -> dict[str, object]:
    started_s = time.perf_counter()
    size = {"modules": 20} if rig.rehearsal else {}
    side, tensors = (256, 2) if rig.rehearsal else (4096, 8)
    aligned = Lora(folder / "aligned.safetensors", odd=False, **size)
    odd = Lora(folder / "odd.safetensors", odd=True, **size)
    with DeviceTransfer(rig.copies()) as transfer:
        ways = {"aligned": measure_ways(rig, aligned, transfer), "2-byte aligned": measure_ways(rig, odd, transfer)}
        packed = measure_packed(rig, transfer, side, tensors)
        overlap = measure_overlap(rig, odd, transfer, side)
        busy = measure_busy_interpreter(rig, odd, transfer)
    staging, streams = measure_staging(rig, odd), measure_streams(rig, odd)
    # Last: a driver that refuses to pin memory reports it again at the next launch.
    pinning = measure_pinning(rig, aligned)
    median_s = ways["2-byte aligned"]
    speedup = median_s["each .to()"] / median_s["resident"]
    link_share = median_s["pinned copy"] / median_s["resident"]
    return {
        "benchmark": "transfer",
        "rounds": rig.rounds,
        "rehearsal": rig.rehearsal,
        "files": {name: _file(lora, ways[name]) for name, lora in (("aligned", aligned), ("2-byte aligned", odd))},
        "staging_bytes_per_s": staging,
        "streams_bytes_per_s": streams,
        "packed": packed,
        "overlap": overlap,
        "busy_interpreter": busy,
        "pinning": pinning,
        "speedup": speedup,
        "link_share": link_share,
        "file_link_share": median_s["pinned copy"] / median_s["file"],
        "bars": {"speedup": BAR_SPEEDUP, "link_share": BAR_LINK},
        "passed": speedup >= BAR_SPEEDUP and link_share >= BAR_LINK,
        "seconds": time.perf_counter() - started_s,
        "machine": _machine(rig),
    }


def _file(lora: Lora, median_s: dict[str, float]) -> dict[str, object]:
    rates = {way: lora.nbytes / seconds for way, seconds in median_s.items()}
    return {"tensors": len(lora.file.tensors), "nbytes": lora.nbytes, "median_s": median_s, "bytes_per_s": rates}


def _machine(rig: Rig) -> dict[str, object]:
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if rig.on_gpu else "none",
    }


if __name__ == "__main__":
    main()
