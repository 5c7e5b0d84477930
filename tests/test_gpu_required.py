"""A machine that is there to run the `gpu` tests must not look green because it saw no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_a_machine_that_must_have_a_gpu_may_not_skip() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "loaders/test_tracking.py"]
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "WARMSTACK_REQUIRE_GPU": "1"}
    ran = subprocess.run(command, env=blind, cwd=TESTS, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 1, ran.stdout
    assert "needs a CUDA device" in ran.stdout
