"""A queued batch on a real ComfyUI: what cold LoRA files cost, and what is left of that when they are read ahead.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python benchmarks/host_queue.py [cold] [slow] [idle] --out host_queue.json

`cold`: cold files on this machine's disk, stock loaders and ours, prefetch off and on. The floor is the same batch with
every page warm and nothing prefetched, so `off - floor` is what cold files cost.
`slow`: the pack's files on a disk of so many bytes per second, in every mode; hidden is what the waits of the same
demands were without prefetch, less what they were with it.
`idle`: jobs without a LoRA, prefetch on and off in turn, after the same with both off.

Every run has a server of its own. Times come from the host's history, without the hold that stands for GPU work; waits
from the pack's history of jobs. The first job, for which nothing can be read ahead, is left out.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostkit.idle_run import compare_idle
from hostkit.queue_run import Batch, BatchRun, hidden_share, prepare, run_batch
from hostkit.server import HostInstall
from hostkit.slow_run import ModeRun, modes, run_mode
from written import write_report

PARTS = ("cold", "slow", "idle")
COLD_RUNS = {
    "off": {"prefetch": False},
    "on": {"prefetch": True},
    "floor": {"prefetch": False, "warm": True},
}


def cold_report(install: HostInstall, base: Path, batch: Batch) -> dict[str, Any]:
    runs = {
        loader: {name: run_batch(install, base, batch, loader, **options) for name, options in COLD_RUNS.items()}
        for loader in ("stock", "stack")
    }
    return {
        **{loader: cold_summary(by_name, batch.hold_s) for loader, by_name in runs.items()},
        "exact_stack_equals_stock": runs["stack"]["on"].digests == runs["stock"]["off"].digests,
    }


def cold_summary(runs: dict[str, BatchRun], hold_s: float) -> dict[str, Any]:
    """Figures of one loader; seconds are sums over all jobs but the first."""
    off, on, floor = (runs[name] for name in ("off", "on", "floor"))
    return {
        "off_s": off.busy_s,
        "on_s": on.busy_s,
        "floor_s": floor.busy_s,
        "median_job_ms": {name: 1000 * run.median_s for name, run in runs.items()},
        "hidden_share_by_wall_clock": hidden_share(off.busy_s, on.busy_s, floor.busy_s),
        "images_identical": off.digests == on.digests == floor.digests,
        "own_hidden_share": on.own_hidden_share,
        "own_page_share": on.own_page_share,
        "job_to_load_ratio": (off.median_s + hold_s) / max(off.median_s - floor.median_s, 1e-3),
        "own_figures": {name: run.status["prefetch"] | {"in_flight": None} for name, run in runs.items()},
        "budget": on.status["budget"],
    }


def slow_reports(
    install: HostInstall, base: Path, batch: Batch, bytes_per_s: int, chosen: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The report as far as it has come, after every mode."""
    runs: dict[str, ModeRun] = {}
    for name in chosen:
        runs[name] = run_mode(install, base, batch, modes(batch)[name], bytes_per_s)
        yield {
            "disk_bytes_per_s": bytes_per_s,
            **{name: run.summary(runs["fused, off" if "fused" in name else "off"]) for name, run in runs.items()},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; without any, all")
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--megabytes", type=int, default=128, help="size of each LoRA file")
    parser.add_argument("--hold", type=float, default=1.2, help="seconds of GPU-like waiting in each job")
    parser.add_argument("--disk", type=int, default=200, help="megabytes per second of the slow disk")
    parser.add_argument("--modes", nargs="*", help="of the slow disk; without any, all")
    parser.add_argument("--blocks", type=int, default=12, help="pairs of blocks without a LoRA")
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to standard output")
    arguments = parser.parse_args()
    install = HostInstall.from_environment()
    if install is None:
        parser.error("set COMFYUI_PATH and COMFYUI_PYTHON")
    if not set(arguments.parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    for report in reports(install, arguments):
        if arguments.out is not None:
            write_report(report, arguments.out)
    if arguments.out is None:
        write_report(report, None)
    return 0


def reports(install: HostInstall, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The report after every run that is worth keeping should the next one fail."""
    batch = Batch(arguments.jobs, arguments.megabytes * 1_000_000, arguments.hold)
    parts = arguments.parts or PARTS
    report: dict[str, Any] = {
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "batch": asdict(batch),
    }
    folder = Path(tempfile.mkdtemp(prefix="host-queue-"))
    try:
        base = prepare(folder / "base", batch)
        if "cold" in parts:
            report |= cold_report(install, base, batch)
            yield report
        if "slow" in parts:
            chosen = arguments.modes or modes(batch)
            for slow in slow_reports(install, base, batch, arguments.disk * 1_000_000, tuple(chosen)):
                report["slow"] = slow
                yield report
        if "idle" in parts:
            report["idle"] = compare_idle(install, base, arguments.blocks, block_jobs=4)
            yield report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
