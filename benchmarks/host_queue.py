"""A queued batch on a real ComfyUI, each job with its own cold LoRA: prefetch off and on, stock loaders and ours.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python benchmarks/host_queue.py --out host_queue.json

Every run has a server of its own. Times come from the host's history, without the hold that stands for GPU work. The
floor is
the same batch with every page warm and nothing prefetched, so `off - floor` is what cold files cost.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostkit.queue_run import Batch, BatchRun, hidden_share, prepare, run_batch
from hostkit.server import HostInstall

MODES = {
    "off": {"prefetch": False},
    "on": {"prefetch": True},
    "floor": {"prefetch": False, "warm": True},
}


def measure(install: HostInstall, base: Path, batch: Batch, loader: str) -> dict[str, BatchRun]:
    """The batch in all three modes, on files that are already there."""
    return {mode: run_batch(install, base, batch, loader, **options) for mode, options in MODES.items()}


def summary(runs: dict[str, BatchRun], hold_s: float) -> dict[str, Any]:
    """Figures of one loader; seconds are sums over all jobs but the first."""
    off, on, floor = (runs[mode] for mode in ("off", "on", "floor"))
    return {
        "off_s": off.busy_s,
        "on_s": on.busy_s,
        "floor_s": floor.busy_s,
        "median_job_ms": {mode: 1000 * run.median_s for mode, run in runs.items()},
        "hidden_share_by_wall_clock": hidden_share(off.busy_s, on.busy_s, floor.busy_s),
        "images_identical": off.digests == on.digests == floor.digests,
        "own_hidden_share": on.own_hidden_share,
        "own_page_share": on.own_page_share,
        "job_to_load_ratio": (off.median_s + hold_s) / max(off.median_s - floor.median_s, 1e-3),
        "own_figures": {mode: run.status["prefetch"] | {"in_flight": None} for mode, run in runs.items()},
        "budget": on.status["budget"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--megabytes", type=int, default=128, help="size of each LoRA file")
    parser.add_argument("--hold", type=float, default=1.2, help="seconds of GPU-like waiting in each job")
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to standard output")
    arguments = parser.parse_args()
    install = HostInstall.from_environment()
    if install is None:
        parser.error("set COMFYUI_PATH and COMFYUI_PYTHON")
    batch = Batch(arguments.jobs, arguments.megabytes * 1_000_000, arguments.hold)
    folder = Path(tempfile.mkdtemp(prefix="host-queue-"))
    try:
        base = prepare(folder / "base", batch)
        runs = {loader: measure(install, base, batch, loader) for loader in ("stock", "stack")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = {
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "batch": asdict(batch),
        **{loader: summary(by_mode, batch.hold_s) for loader, by_mode in runs.items()},
        "exact_stack_equals_stock": runs["stack"]["on"].digests == runs["stock"]["off"].digests,
    }
    text = json.dumps(report, indent=2)
    if arguments.out is None:
        sys.stdout.write(text + "\n")
    else:
        arguments.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
