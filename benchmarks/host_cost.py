"""What it costs ComfyUI to have the pack installed and idle: seconds until it answers, CPU seconds, resident memory,
imports.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python benchmarks/host_cost.py --out host_cost.json

Rounds with and without the pack alternate, so that a busy moment of the machine does not count for one side only.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hostkit.server import HostInstall, HostServer, make_base_directory
from written import write_report

FOREIGN_MODULES = ("diffusers", "peft", "matplotlib", "accelerate", "rich")
"""What the pack must not bring into the host; the host may have some of its own."""

_SETTLE_S = 3.0


class Cost(NamedTuple):
    """One server, started and idle."""

    ready_s: float
    cpu_s: float
    """User and system seconds of the process until it had settled."""
    resident_bytes: int
    anonymous_bytes: int
    modules: tuple[str, ...]


def measure(install: HostInstall, base: Path) -> Cost:
    """Start a server on `base`, let it settle, read its figures, stop it."""
    with HostServer(install, base) as server:
        assert server.process is not None
        time.sleep(_SETTLE_S)
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        ticks = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        prompt = {"1": {"class_type": "TestModules", "inputs": {"names": ",".join(FOREIGN_MODULES), "tag": ""}}}
        modules = server.client.run(prompt)[0].output("modules")
    return Cost(
        server.ready_s,
        sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        _kilobytes(status, "VmRSS") * 1024,
        _kilobytes(status, "RssAnon") * 1024,
        tuple(modules),
    )


def compare(install: HostInstall, folder: Path, rounds: int) -> dict[str, Any]:
    """Medians of `rounds` alternating starts, and their differences (with minus without)."""
    bases = {
        "without": make_base_directory(folder / "without", with_pack=False),
        "with": make_base_directory(folder / "with"),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in bases}
    for base in bases.values():
        measure(install, base)  # the first start reads torch from the disk
    for _ in range(rounds):
        for name, base in bases.items():
            costs[name].append(measure(install, base))
    medians = {name: _medians(of) for name, of in costs.items()}
    return {
        "rounds": rounds,
        **medians,
        "difference": {key: medians["with"][key] - medians["without"][key] for key in medians["with"]},
        "modules_brought_in": sorted(_modules(costs["with"]) - _modules(costs["without"])),
    }


def _medians(costs: list[Cost]) -> dict[str, float]:
    figures = ("ready_s", "cpu_s", "resident_bytes", "anonymous_bytes")
    return {name: statistics.median(getattr(cost, name) for cost in costs) for name in figures}


def _modules(costs: Iterable[Cost]) -> set[str]:
    return {module for cost in costs for module in cost.modules}


def _kilobytes(status: str, field: str) -> int:
    return int(status.partition(f"{field}:")[2].split()[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the JSON here instead of to standard output")
    arguments = parser.parse_args()
    install = HostInstall.from_environment()
    if install is None:
        parser.error("set COMFYUI_PATH and COMFYUI_PYTHON")
    with tempfile.TemporaryDirectory(prefix="host-cost-") as folder:
        report = {"machine": platform.platform(), **compare(install, Path(folder), arguments.rounds)}
    write_report(report, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
