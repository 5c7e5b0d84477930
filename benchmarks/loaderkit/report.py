"""The report: samples of any number of runs, their medians, and the bars they are held to."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping
from datetime import date
from typing import Any

import torch

from .beside import medians as beside_medians
from .consumer import medians as consumer_medians
from .contenders import CONTENDERS

BARS: Mapping[str, float] = {
    "warm views": 0.4,
    "cold": 1.2,
    "warm private copy": 2.2,
    "ahead of peers that copy": 1.5,
    "part": 1.05,
    "beside a busy thread": 4.0,
    "late_ms": 2.0,
}
Samples = Mapping[str, Mapping[str, list[float]]]
"""contender -> figure -> value of each round."""
_MEMORY = {contender.name: contender.memory for contender in CONTENDERS}
_OURS = {contender.name for contender in CONTENDERS if contender.ours}


def merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The report of both runs: samples are put together, all else is that of the later one."""
    report = {**before, **after, "workloads": {**before.get("workloads", {})}}
    report["wanted_bytes"] = {**before.get("wanted_bytes", {}), **after.get("wanted_bytes", {})}
    for name, states in after.get("workloads", {}).items():
        known = dict(report["workloads"].get(name, {}))
        for state, found in states.items():
            known[state] = _joined(known[state], found) if state in known else found
        report["workloads"][name] = known
    return report


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Medians, and each bar with what was measured against it."""
    tables = {
        f"{name}, {state}": medians(found)
        for name, states in report.get("workloads", {}).items()
        for state, found in states.items()
    }
    beside = {"beside": beside_medians(report["beside"])} if "beside" in report else {}
    consumer = {"consumer": consumer_medians(report["consumer"])} if "consumer" in report else {}
    bars = {**_speed_bars(report.get("workloads", {})), **_other_bars(report)}
    return {"medians": tables, **beside, **consumer, "bars": bars}


def medians(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """contender -> figure -> median, the fastest first."""
    rows = {
        name: {figure: statistics.median(values) for figure, values in figures.items()}
        for name, figures in found["samples"].items()
    }
    for name, nbytes in found["peak_bytes"].items():
        if name in rows:
            rows[name]["peak_bytes"] = nbytes
    return dict(sorted(rows.items(), key=lambda row: row[1]["touched_s"]))


def machine() -> dict[str, Any]:
    return {
        "measured": date.today().isoformat(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def floor_s(rows: Mapping[str, Mapping[str, float]]) -> float | None:
    found = [row["touched_s"] for name, row in rows.items() if _MEMORY[name] == "floor"]
    return min(found, default=None)


def _speed_bars(workloads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for workload, states in workloads.items():
        for state, found in states.items():
            samples = found["samples"]
            floors = [name for name in samples if _MEMORY[name] == "floor"]
            peers = [name for name in samples if name not in _OURS and _MEMORY[name] != "floor"]
            if not floors or "auto" not in samples:
                continue
            if state == "cold":
                bars |= _cold_bars(workload, samples, floors, peers)
            else:
                bars |= _warm_bars(workload, samples, floors, peers)
    return bars


def _cold_bars(workload: str, samples: Samples, floors: list[str], peers: list[str]) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for name in ("auto", "auto, fresh memory"):
        if name not in samples:
            continue
        what = f"{workload}{name.removeprefix('auto')}"
        bars[f"cold, {what}"] = _bar(max(_times(samples, name, floor) for floor in floors), "cold")
        if peers:
            ratio = max(_times(samples, name, peer) for peer in peers)
            bars[f"cold, {what}, against the fastest peer"] = _bar(ratio, limit=1.0)
    return bars


def _warm_bars(workload: str, samples: Samples, floors: list[str], peers: list[str]) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    if workload in ("lora", "batch") and "safetensors load_file" in samples:
        ratio = _times(samples, "lazy", "safetensors load_file", figure="returned_s")
        bars[f"warm views, {workload}"] = _bar(ratio, "warm views")
    copying = [name for name in peers if _MEMORY[name] == "private"]
    for name in ("auto", "auto, fresh memory"):
        if name not in samples:
            continue
        what = f"{workload}{name.removeprefix('auto')}"
        ratio = max(_times(samples, name, floor) for floor in floors)
        bars[f"warm private copy, {what}"] = _bar(ratio, "warm private copy")
        if copying:
            ratio = min(_times(samples, peer, name) for peer in copying)
            bars[f"ahead of peers that copy, {what}"] = _bar(ratio, "ahead of peers that copy", least=True)
    return bars


def _times(samples: Samples, name: str, other: str, *, figure: str = "") -> float:
    """How many times as long `name` takes as `other`: the median over the rounds, each of which compares the two in the
    same minute of a machine whose speed drifts. A floor and a copy are done when they return; views have put off
    reading their pages. Where one had rounds that the other lacks, of the medians."""
    ours, theirs = (
        samples[one][figure or ("touched_s" if _MEMORY[one] == "views" else "returned_s")] for one in (name, other)
    )
    if len(ours) != len(theirs):
        return statistics.median(ours) / statistics.median(theirs)
    return statistics.median(mine / their for mine, their in zip(ours, theirs, strict=True))


def _other_bars(report: Mapping[str, Any]) -> dict[str, Any]:
    bars: dict[str, Any] = {}
    for workload, words in (("subset", "part"), ("shards_subset", "part of shards")):
        part = report.get("workloads", {}).get(workload, {})
        wanted_bytes = report.get("wanted_bytes", {}).get(workload, 0)
        if "cold" in part:
            read_bytes = statistics.median(part["cold"]["samples"]["auto"]["read_bytes"])
            bars[f"{words}, bytes read"] = _bar(read_bytes / wanted_bytes, "part")
        if "warm" in part:
            bars[f"{words}, peak memory"] = _bar(part["warm"]["peak_bytes"]["auto"] / wanted_bytes, "part")
    for row in report.get("window", ()):
        limit_bytes = row["max_bytes"] + row["largest_tensor_bytes"]
        bars[f"streaming, {row['max_bytes']} bytes"] = _bar(row["peak_bytes"] / limit_bytes, limit=1.0)
    if "beside" in report:
        rows = beside_medians(report["beside"])
        for name in ("read_tensors", "load_loras_batch, eager"):
            bars[f"{name} beside a busy thread"] = _bar(rows[name]["times"], "beside a busy thread")
            bars[f"{name}: loop late at p99, ms"] = _bar(rows[name]["late_p99_ms"], "late_ms")
    return bars


def _bar(value: float, name: str = "", *, limit: float | None = None, least: bool = False) -> dict[str, Any]:
    bar = BARS[name] if limit is None else limit
    return {"value": round(value, 3), "bar": bar, "met": value >= bar if least else value <= bar}


def _joined(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    names = {**before["samples"], **after["samples"]}
    samples = {
        name: {
            figure: [
                *before["samples"].get(name, {}).get(figure, ()),
                *after["samples"].get(name, {}).get(figure, ()),
            ]
            for figure in figures
        }
        for name, figures in names.items()
    }
    peaks = {**before["peak_bytes"], **after["peak_bytes"]}
    return {"samples": samples, "peak_bytes": peaks, "absent": {**before["absent"], **after["absent"]}}
