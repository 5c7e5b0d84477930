"""benchmarks/transfer.py runs from end to end where no GPU is, so that it will where one is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "transfer.py"


def test_the_rehearsal_checks_every_way_and_reports(tmp_path: Path):
    report = tmp_path / "report.json"
    subprocess.run([sys.executable, SCRIPT, "--rehearse", "--json", report], check=True, timeout=100)
    told = json.loads(report.read_text())
    assert set(told["files"]) == {"aligned", "2-byte aligned"}
    assert {"pinned copy", "each .to()", "resident", "file", "gathered"} <= told["files"]["aligned"]["median_s"].keys()
    assert {row["fillers"] for row in told["staging_bytes_per_s"]} == {1, 2, 4, 8}
    assert {"passed", "bars", "packed", "overlap", "busy_interpreter", "pinning", "machine"} <= told.keys()
