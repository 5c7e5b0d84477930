"""The replay benchmark on short traces, and the traces it writes."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def replay(tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    out = tmp_path / "replay.json"
    command = [sys.executable, str(BENCHMARKS / "replay.py"), "--out", str(out), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.stderr == ""
    return ended.returncode, json.loads(out.read_text("utf-8"))


def test_short_queues_and_short_sessions_hold_their_bars(tmp_path: Path) -> None:
    chosen = ["workstation", "xy_plot", "fronts", "cleared", "thrash", "session", "chance"]
    status, report = replay(tmp_path, "--jobs", "400", "--only", *chosen)
    assert report["missed"] == []
    assert status == 0
    assert list(report["workloads"]) == chosen
    judged = {bar["name"] for bar in report["workloads"]["workstation"][0]["bars"]}
    assert {"hidden", "wait p99 after the first job", "wasted, of bytes read", "WarmStack: peak of budget"} <= judged
    assert any(name.startswith("bytes, of LRU") for name in judged)


def test_a_missed_bar_is_named_and_ends_with_status_1(tmp_path: Path) -> None:
    """The first jobs of a long tail wait for a disk that is nearly full, and of 300 jobs they are more than 1 %."""
    status, report = replay(tmp_path, "--jobs", "300", "--only", "long_tail")
    assert status == 1
    assert any(line.startswith("long_tail: wait p99") for line in report["missed"])
    (run,) = report["workloads"]["long_tail"]
    assert run["results"]["WarmStack"]["hidden"] >= 0.95
    assert all(result["peak_of_budget"] <= 1.0 for result in run["results"].values())


@pytest.mark.parametrize(
    "workload", ["workstation", "fronts", "cleared", "xy_plot", "long_tail", "thrash", "session", "chance"]
)
def test_a_trace_survives_its_file_and_its_seed_makes_it(tmp_path: Path, workload: str) -> None:
    trace = runpy.run_path(str(BENCHMARKS / "replay_trace.py"))
    made = trace[workload](7, 50)
    trace["write"](tmp_path / "trace.jsonl", made)
    assert trace["read"](tmp_path / "trace.jsonl") == made
    assert made == trace[workload](7, 50)
    assert made != trace[workload](8, 50)
    order = trace["run_order"](made)
    assert sorted(job.id for job in order) == [job.id for job in made.jobs if job in order]
    assert {job.id for job in order} >= {job.id for job in made.jobs if job.cancel_at is None}
