"""The replay benchmark on short traces, and the traces it writes."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_bars_of_the_workstation_and_a_long_tail_that_has_just_started(tmp_path: Path) -> None:
    out = tmp_path / "replay.json"
    command = [sys.executable, str(BENCHMARKS / "replay.py"), "--jobs", "700", "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.stderr == ""
    report = json.loads(out.read_text("utf-8"))
    assert not [bar for bar in report["missed"] if bar.startswith("workstation")]
    # Its first jobs wait for a disk that is nearly full, and of 700 jobs they are more than 1 %.
    long_tail = report["workloads"]["long_tail"][0]["WarmStack"]
    assert long_tail["hidden"] >= 0.98
    assert long_tail["peak_of_budget"] <= 1.0
    assert ended.returncode == bool(report["missed"])


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    trace = runpy.run_path(str(BENCHMARKS / "replay_trace.py"))
    made = trace["workstation"](7, 50)
    trace["write"](tmp_path / "trace.jsonl", made)
    assert trace["read"](tmp_path / "trace.jsonl") == made
    assert made == trace["workstation"](7, 50)
    assert made != trace["workstation"](8, 50)
