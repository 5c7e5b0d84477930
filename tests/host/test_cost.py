"""Being installed costs ComfyUI next to nothing while the pack is idle. The figures: benchmarks/host_cost.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_cost import compare
from hostkit.server import HostInstall


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_installed_and_idle_it_is_cheap_and_brings_nothing_along(install: HostInstall, tmp_path: Path) -> None:
    report = compare(install, tmp_path, rounds=2)
    assert report["modules_brought_in"] == []
    assert report["difference"]["resident_bytes"] <= 50_000_000
    # CPU seconds and not the clock on the wall: what else the machine does must not decide.
    assert report["difference"]["cpu_s"] <= 0.5
