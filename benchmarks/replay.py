"""Replays queues through the real planner and cache with a simulated disk and clock, against what others do.

    python benchmarks/replay.py [--jobs 1500] [--seeds 1] [--only NAME ...] [--out FILE] [--chart FILE] [--trace FILE]

`replay_trace.py` makes the workloads and has their format. There is one disk, and a demand pauses what is read ahead.
`hidden` is 1 minus the waiting as a share of what the same demands cost when every file is read cold; neither counts
the first job. Every bar that applies to a workload is checked, and the exit status is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from replay_loaders import Ahead, FullFuture, Library, Loader, OnDemand, WarmStack
from replay_queue import Replay, SimulatedClock
from replay_trace import Trace, chance, cleared, fronts, long_tail, read, session, thrash, workstation, xy_plot
from written import write_report

from warmstack.lora.cache.policies import Gdsf, Lfu, Lru

BUDGET_BYTES = 6_000_000_000
WASTE_MARGIN = 0.02
OURS, PREDICTING = "WarmStack", "WarmStack, predicting"
LRU, MIN, LRU_AHEAD = "LRU on demand", "full-future MIN on demand", "LRU + 8 jobs ahead"

Results = Mapping[str, Mapping[str, Any]]
MakeLoader = Callable[[Trace, Library, SimulatedClock, float], Loader]

LOADERS: dict[str, MakeLoader] = {
    LRU: lambda trace, library, clock, rate: OnDemand(library, BUDGET_BYTES, clock, Lru()),
    "LFU on demand": lambda trace, library, clock, rate: OnDemand(library, BUDGET_BYTES, clock, Lfu()),
    "GDSF on demand": lambda trace, library, clock, rate: OnDemand(library, BUDGET_BYTES, clock, Gdsf()),
    MIN: lambda trace, library, clock, rate: FullFuture(trace, library, BUDGET_BYTES, clock),
    LRU_AHEAD: lambda trace, library, clock, rate: Ahead(library, BUDGET_BYTES, clock, Lru(), 8),
    OURS: lambda trace, library, clock, rate: WarmStack(library, BUDGET_BYTES, clock, rate, predict=False),
}
WITHOUT_QUEUE: dict[str, MakeLoader] = {
    **{name: LOADERS[name] for name in (LRU, MIN, OURS)},
    PREDICTING: lambda trace, library, clock, rate: WarmStack(library, BUDGET_BYTES, clock, rate, predict=True),
}


class Workload(NamedTuple):
    make: Callable[[int, int], Trace]
    bytes_per_s: float
    loaders: Mapping[str, MakeLoader] = LOADERS


WORKLOADS = {
    "workstation": Workload(workstation, 500e6),
    "xy_plot": Workload(xy_plot, 500e6),
    "fronts": Workload(fronts, 500e6),
    "cleared": Workload(cleared, 500e6),
    "long_tail": Workload(long_tail, 100e6),
    "thrash": Workload(thrash, 500e6),
    "session": Workload(session, 500e6, WITHOUT_QUEUE),
    "chance": Workload(chance, 500e6, WITHOUT_QUEUE),
}


class Bar(NamedTuple):
    name: str
    value: float
    limit: float
    held: bool


def at_least(name: str, value: float, limit: float) -> Bar:
    return Bar(name, round(value, 4), round(limit, 4), value >= limit)


def at_most(name: str, value: float, limit: float) -> Bar:
    return Bar(name, round(value, 4), round(limit, 4), value <= limit)


def compare(trace: Trace, workload: Workload) -> dict[str, dict[str, Any]]:
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        library = Library(trace, Path(folder))
        for name, make_loader in workload.loaders.items():
            clock = SimulatedClock()
            loader = make_loader(trace, library, clock, workload.bytes_per_s)
            results[name] = Replay(trace, workload.bytes_per_s, clock, loader).run()
    return results


def bars(workload: str, trace: Trace, results: Results) -> Iterator[Bar]:
    """Those that apply."""
    for name, result in results.items():
        yield at_most(f"{name}: peak of budget", result["peak_of_budget"], 1.0)
    ours = results[OURS]
    if PREDICTING in results:
        yield from predictor_bars(workload, ours, results[PREDICTING])
        return
    yield at_least("hidden", ours["hidden"], 0.99)
    yield at_most("wait p99 after the first job", ours["wait_p99_s"], 0.0)
    yield at_most("wasted, of bytes read", ours["wasted_share"], trace.cancelled_share + WASTE_MARGIN)
    if workload == "workstation":
        yield at_most(f"bytes, of {LRU_AHEAD}'s", ours["moved_gb"] / results[LRU_AHEAD]["moved_gb"], 0.85)


def predictor_bars(workload: str, ours: Mapping[str, Any], predicting: Mapping[str, Any]) -> Iterator[Bar]:
    """Where the queue shows nothing: it helps who has habits and costs who has none nothing."""
    more_bytes = predicting["moved_gb"] / ours["moved_gb"] - 1
    if workload == "session":
        yield at_least("hidden more by predicting", predicting["hidden"] - ours["hidden"], 0.05)
        yield at_most("bytes read more by predicting", more_bytes, 0.6)
    else:
        yield at_least("hidden more by predicting", predicting["hidden"] - ours["hidden"], -0.001)
        yield at_most("bytes read more by predicting", more_bytes, 0.02)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """One panel per workload, its first seed: bytes read against the share of load time hidden."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    workloads = report["workloads"]
    rows = -(-len(workloads) // 4)
    figure, axes = pyplot.subplots(rows, 4, figsize=(15, 4 * rows + 0.6), squeeze=False)
    palette = pyplot.get_cmap("Set2")
    colours: dict[str, Any] = {loader: palette(index) for index, loader in enumerate(LOADERS)}
    colours |= {OURS: "black", PREDICTING: "tab:red"}
    handles: dict[str, Any] = {}
    for axis, (name, seeds) in zip(axes.flat, workloads.items(), strict=False):
        for loader, result in seeds[0]["results"].items():
            ours = loader in (OURS, PREDICTING)
            handles[loader] = axis.scatter(
                result["moved_gb"],
                100 * result["hidden"],
                s=160 if ours else 90,
                marker="*" if ours else "o",
                color=colours[loader],
            )
        axis.set(title=name.replace("_", " "), xlabel="GB read", ylabel="% of load time hidden", ylim=(-5, 105))
        axis.margins(x=0.2)
    for axis in list(axes.flat)[len(workloads) :]:
        axis.axis("off")
    figure.tight_layout(rect=(0, 0.6 / (4 * rows + 0.6), 1, 1))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=len(handles))
    figure.savefig(path, dpi=80)


def replay(name: str, workload: Workload, trace: Trace) -> dict[str, Any]:
    results = compare(trace, workload)
    return {"results": results, "bars": [bar._asdict() for bar in bars(name, trace, results)]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--trace", type=Path, help="replay this file instead, at 500 MB/s")
    options = parser.parse_args()
    if options.trace:
        runs = {"trace": [replay("trace", Workload(workstation, 500e6), read(options.trace))]}
    else:
        chosen = {name: WORKLOADS[name] for name in options.only}
        runs = {
            name: [replay(name, workload, workload.make(seed, options.jobs)) for seed in range(options.seeds)]
            for name, workload in chosen.items()
        }
    missed = [
        f"{name}: {bar['name']}: {bar['value']} (limit {bar['limit']})"
        for name, seeds in runs.items()
        for run in seeds
        for bar in run["bars"]
        if not bar["held"]
    ]
    report = {"budget_bytes": BUDGET_BYTES, "workloads": runs, "missed": missed}
    write_report(report, options.out)
    if options.chart:
        draw(report, options.chart)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
