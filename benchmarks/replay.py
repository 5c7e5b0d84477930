"""Replays queues through the real planner and cache with a simulated disk and clock, against what others do.

    python benchmarks/replay.py [--jobs 1500] [--seeds 1] [--out replay.json] [--chart replay.png] [--trace FILE]

Two workloads, made by `replay_trace.py`, which has the format too: one person's workstation at 500 MB/s and a long-tail
server at 100 MB/s, 10 % of the jobs cancelled while queued. One disk: a demand pauses what is read ahead. `hidden` is 1
minus the waiting as a share of what the same demands cost when every file is read cold. The bars: workstation >= 99 %
hidden with at most 0.85 of the bytes of LRU that fetches 8 jobs ahead, long tail >= 99 % hidden, nobody waits after the
first job (p99), waste at most the cancelled share + 2 %, and never more reserved than the budget.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay_policies import Policy, Simple, WarmStack
from replay_trace import CANCELLED, DEPTH, Trace, TraceJob, long_tail, read, workstation

BUDGET_BYTES = 6_000_000_000
WORKLOADS = {"workstation": (workstation, 500e6), "long_tail": (long_tail, 100e6)}
BASELINES = {
    "LRU on demand": {"rank": "lru"},
    "LFU on demand": {"rank": "lfu"},
    "GDSF on demand": {"rank": "gdsf"},
    "full-future MIN on demand": {"rank": "min"},
    "LRU + 8 jobs ahead": {"rank": "lru", "depth": 8},
}
OURS = "WarmStack"
REFERENCE = "LRU + 8 jobs ahead"


@dataclass
class Replay:
    """One trace through one policy. Times in seconds of a simulated clock."""

    trace: Trace
    rate: float
    now_s: float = 0.0
    moved_bytes: float = 0.0
    cancelled_bytes: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    cold_s: float = 0.0
    in_flight: str | None = None
    left_s: float = 0.0
    asked_at_s: float = math.inf

    def run(self, policy: Policy) -> dict[str, Any]:
        coming = deque(self.trace.jobs)
        queue: list[TraceJob] = []
        running: TraceJob | None = None
        ends_s = math.inf
        while coming or queue or running:
            if running is None and queue:
                running = queue.pop(0)
                ends_s = self._start(policy, running)
            # New jobs come while one runs, so that even one that jumps the queue has been seen before its turn.
            self._top_up(queue, coming)
            if self.in_flight and not policy.still_wanted(self.in_flight, running, queue):
                self._abandon(policy)
            if self.in_flight is None:
                self._fetch(policy, running, queue)
            link_s = self.now_s + self.left_s if self.in_flight else math.inf
            step_s = min(ends_s, link_s, self.asked_at_s) if running else self.now_s
            self.left_s -= step_s - self.now_s
            self.now_s = step_s
            if self.in_flight and link_s <= step_s:
                self._arrived(policy)
            if running is not None and ends_s <= step_s:
                policy.finish(running)
                running, ends_s = None, math.inf
        return self._report(policy)

    def _top_up(self, queue: list[TraceJob], coming: deque[TraceJob]) -> None:
        while coming and len(queue) < DEPTH:
            job = coming.popleft()
            queue.insert(0 if job.front else len(queue), job)
        for place, job in enumerate(list(queue)):
            if job.cancel_at is not None and place <= job.cancel_at * DEPTH:
                queue.remove(job)

    def _start(self, policy: Policy, job: TraceJob) -> float:
        """Demands go first; what was being read ahead goes on afterwards."""
        misses = policy.start(job)
        wait_s = sum(self.trace.sizes[name] for name in misses) / self.rate
        self.moved_bytes += sum(self.trace.sizes[name] for name in misses)
        if self.in_flight in job.loras:
            wait_s += self.left_s
            self._arrived(policy)
        self.waits_s.append(wait_s)
        self.cold_s += sum(self.trace.sizes[name] for name in job.loras) / self.rate
        self.now_s += wait_s
        return self.now_s + job.run_s

    def _fetch(self, policy: Policy, running: TraceJob | None, queue: list[TraceJob]) -> None:
        wanted = policy.next_fetch(running, queue, self.in_flight)
        self.asked_at_s = math.inf if wanted.wait_s is None else self.now_s + max(wanted.wait_s, 0.01)
        if wanted.name is not None:
            self.in_flight = wanted.name
            self.left_s = self.trace.sizes[wanted.name] / self.rate

    def _arrived(self, policy: Policy) -> None:
        assert self.in_flight is not None
        size_bytes = self.trace.sizes[self.in_flight]
        self.moved_bytes += size_bytes
        policy.fetched(self.in_flight, size_bytes / self.rate, whole=True)
        self.in_flight, self.left_s = None, 0.0

    def _abandon(self, policy: Policy) -> None:
        assert self.in_flight is not None
        read_bytes = self.trace.sizes[self.in_flight] - self.left_s * self.rate
        self.moved_bytes += read_bytes
        self.cancelled_bytes += read_bytes - self.trace.sizes[self.in_flight]
        policy.fetched(self.in_flight, 0.0, whole=False)
        self.in_flight, self.left_s = None, 0.0

    def _report(self, policy: Policy) -> dict[str, Any]:
        waits = sorted(self.waits_s[1:])
        wasted = max(0.0, policy.wasted_bytes + self.cancelled_bytes)
        return {
            "hidden": round(1 - sum(self.waits_s[1:]) / self.cold_s, 4),
            "wait_p50_s": round(waits[len(waits) // 2], 3),
            "wait_p99_s": round(waits[int(0.99 * (len(waits) - 1))], 3),
            "moved_gb": round(self.moved_bytes / 1e9, 2),
            "wasted_share": round(wasted / self.moved_bytes, 4),
            "peak_of_budget": round(policy.peak_bytes / BUDGET_BYTES, 4),
            "jobs": len(self.waits_s),
        }


def compare(trace: Trace, rate: float) -> dict[str, dict[str, Any]]:
    results = {}
    for name, options in BASELINES.items():
        replay = Replay(trace, rate)
        policy: Policy = Simple(trace, BUDGET_BYTES, lambda r=replay: r.now_s, **options)  # type: ignore[arg-type, misc]
        results[name] = replay.run(policy)
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(trace, rate)
        ours = WarmStack(trace, Path(folder), BUDGET_BYTES, rate, lambda r=replay: r.now_s)  # type: ignore[misc]
        results[OURS] = replay.run(ours)
    return results


def failures(workload: str, results: dict[str, dict[str, Any]]) -> list[str]:
    ours, reference = results[OURS], results[REFERENCE]
    bars = {
        "hidden >= 0.99": ours["hidden"] >= 0.99,
        "wait p99 is 0": ours["wait_p99_s"] == 0,
        f"wasted <= {CANCELLED + 0.02:.2f}": ours["wasted_share"] <= CANCELLED + 0.02,
        "peak <= budget": ours["peak_of_budget"] <= 1.0,
    }
    if workload == "workstation":
        bars[f"moved <= 0.85 of {REFERENCE}"] = ours["moved_gb"] <= 0.85 * reference["moved_gb"]
    return [f"{workload}: {bar}" for bar, held in bars.items() if not held]


def draw(report: dict[str, Any], path: Path) -> None:
    """One panel per workload: bytes moved against the share of load time hidden."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report["workloads"]), figsize=(11, 4.5), squeeze=False)
    for axis, (name, seeds) in zip(axes[0], report["workloads"].items(), strict=True):
        for policy, result in seeds[0].items():
            size = 130 if policy == OURS else 50
            axis.scatter(result["moved_gb"], 100 * result["hidden"], s=size, alpha=0.8, label=policy)
        axis.set(
            title=name.replace("_", " "), xlabel="GB read from disk", ylabel="% of load time hidden", ylim=(-5, 105)
        )
        axis.margins(x=0.2)
    axes[0][0].legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--trace", type=Path, help="replay this file instead, at 500 MB/s")
    options = parser.parse_args()
    workloads: dict[str, list[dict[str, dict[str, Any]]]] = {}
    if options.trace:
        workloads["trace"] = [compare(read(options.trace), 500e6)]
    else:
        for name, (make, rate) in WORKLOADS.items():
            workloads[name] = [compare(make(seed, options.jobs), rate) for seed in range(options.seeds)]
    missed = [line for name, seeds in workloads.items() for results in seeds for line in failures(name, results)]
    report = {"budget_bytes": BUDGET_BYTES, "workloads": workloads, "missed": missed}
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if options.chart:
        draw(report, options.chart)
    print(json.dumps(report, indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
