"""A queued batch on a real ComfyUI, each job with its own cold checkpoint: models read ahead, or not.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python benchmarks/host_models.py --out host_models.json

Every mode has a server of its own, and the modes take turns. Times come from the host's history, without the hold that
stands for GPU work. The floor is the same batch with every page warm and nothing read ahead, so `off - floor` is what a
cold checkpoint costs the first job after a switch.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostkit.client import Prompt
from hostkit.graphs import CHECKPOINT, sd15_graph
from hostkit.models import write_models
from hostkit.queue_run import drop_pages, hidden_share
from hostkit.server import HostInstall, HostServer, make_base_directory
from hostkit.tiny_sd15 import write_checkpoint
from written import write_report

from warmstack.loaders.system.page_cache import warm_file

MODES = ("off", "on", "floor")


@dataclass(frozen=True, slots=True)
class Run:
    """One batch. The first job, which nothing can be read ahead for, is left out of the times."""

    times_s: tuple[float, ...]
    digests: tuple[str, ...]
    models: dict[str, Any]
    """The pack's own figures."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6, help="each with a checkpoint of 278 MB")
    parser.add_argument("--hold", type=float, default=2.0, help="seconds of GPU-like waiting in each job")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to standard output")
    arguments = parser.parse_args()
    install = HostInstall.from_environment()
    if install is None:
        parser.error("set COMFYUI_PATH and COMFYUI_PYTHON")
    folder = Path(tempfile.mkdtemp(prefix="host-models-"))
    try:
        base = prepare(folder / "base", arguments.jobs)
        runs: dict[str, list[Run]] = {mode: [] for mode in MODES}
        for _ in range(arguments.repeats):
            for mode in MODES:
                runs[mode].append(run_batch(install, base, mode, arguments.jobs, arguments.hold))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = {
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "jobs": arguments.jobs,
        "hold_s": arguments.hold,
        **summary(runs),
    }
    write_report(report, arguments.out)
    return 0


def prepare(base: Path, jobs: int) -> Path:
    """A base directory with one checkpoint per job, none of which has holes that would be read for nothing."""
    make_base_directory(base)
    write_models(base, flux=False)
    for index in range(jobs):
        write_checkpoint(checkpoint_path(base, index), seed=300 + index, dense=True)
    return base


def checkpoint_path(base: Path, index: int) -> Path:
    return base / "models/checkpoints" / f"switch{index}.safetensors"


def run_batch(install: HostInstall, base: Path, mode: str, jobs: int, hold_s: float) -> Run:
    """Queue the whole batch at once on a fresh server and wait for it."""
    settings = {"WARMSTACK_MODEL_TIER": "on" if mode == "on" else "off"}
    with HostServer(install, base, environment=settings) as server:
        # What the host does once is not what is compared.
        server.client.run(sd15_graph())
        for index in range(jobs):
            path = checkpoint_path(base, index)
            if mode == "floor":
                warm_file(path, cancelled=lambda: False)
            else:
                drop_pages(path)
        ids = [server.client.queue(prompt(index, hold_s)) for index in range(jobs)]
        finished = server.client.wait(ids, 60 + jobs * (hold_s + 20))
        status = server.client.get("/warmstack/v1/status")
    failed = [job.messages[-1] for job in finished if job.status != "success"]
    if failed:
        raise RuntimeError(f"{len(failed)} of {jobs} jobs failed: {failed[0]}")
    return Run(
        tuple(job.run_s - hold_s for job in finished[1:]),
        tuple(job.output("digest")[0] for job in finished),
        status["prefetch"]["models"],
    )


def prompt(index: int, hold_s: float) -> Prompt:
    graph = sd15_graph(hold_s=hold_s)
    assert graph["checkpoint"]["inputs"]["ckpt_name"] == CHECKPOINT
    graph["checkpoint"]["inputs"]["ckpt_name"] = f"switch{index}.safetensors"
    return graph


def summary(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Medians over all repeats."""
    median_s = {mode: statistics.median(time for run in runs[mode] for time in run.times_s) for mode in MODES}
    on = runs["on"]
    return {
        "median_job_ms": {mode: round(1000 * seconds, 1) for mode, seconds in median_s.items()},
        "medians_by_repeat_ms": {
            mode: [round(1000 * statistics.median(run.times_s), 1) for run in runs[mode]] for mode in MODES
        },
        "hidden_share_by_wall_clock": hidden_share(median_s["off"], median_s["on"], median_s["floor"]),
        "in_time": [{key: run.models[key] for key in ("hits", "joins", "misses", "hidden_share")} for run in on],
        "wasted_bytes": sum(run.models["wasted_bytes"] for run in on),
        "images_identical": len({run.digests for mode in MODES for run in runs[mode]}) == 1,
    }


if __name__ == "__main__":
    sys.exit(main())
