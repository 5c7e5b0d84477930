"""What was measured of the strategies, in words: benchmarks/results/loaders.json as two tables of docs/loaders.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "loaders.json"
WORKLOADS = {
    "small": "6 MB",
    "lora": "one LoRA, 222 MB",
    "batch": "eight of them",
    "checkpoint": "4 GB",
    "shards": "4 GB in 5 shards",
    "subset": "30% of 4 GB",
    "shards_subset": "30% of the 5 shards",
    "cast": "4 GB in 5 shards, cast to bf16",
}
PRIVATE = ("eager", "fast_single_file", "parallel", "parallel_async_lazy", "streaming")
VIEWS = ("lazy", "lazy, populate")
_BESIDE = {"eager": "load_loras_batch, eager", "as `auto` chooses": "load_loras_batch, auto"}

_LEAD = 1.1
"""Less is within the spread of five rounds on a shared machine."""

Rows = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Win:
    """A strategy is ahead of all others that hand out the same kind of memory."""

    strategy: str
    text: str


def figures() -> list[Sequence[str]]:
    """A row per strategy: seconds until every page was read, page cache warm / cold; the best private copy in bold."""
    tables = _tables()
    measured = [workload for workload in WORKLOADS if any(name == workload for name, _ in tables)]
    head = ("strategy", *(WORKLOADS[workload] for workload in measured))
    rows = [[f"`{name}`", *(_cell(tables, workload, name) for workload in measured)] for name in (*PRIVATE, *VIEWS)]
    return [head, *(row for row in rows if set(row[1:]) != {"-"})]


def is_measured(strategy: str) -> bool:
    return any(strategy in rows for rows in _tables().values())


def wins() -> list[Win]:
    """Where each strategy is the best of its kind by a tenth or more, next best in brackets."""
    tables, found = _tables(), []
    for (workload, state), rows in tables.items():
        words = f"{WORKLOADS[workload]}, {state}"
        found += _first(rows, PRIVATE, "touched_s", words, _seconds)
        if state == "warm" and workload == "cast":
            found += _first(rows, PRIVATE, "peak_bytes", f"{WORKLOADS[workload]}, memory at the peak", _gigabytes)
        private = min((row["touched_s"] for name, row in rows.items() if name in PRIVATE), default=0.0)
        lazy = min((row["touched_s"] for name, row in rows.items() if name in VIEWS), default=private)
        if workload != "cast" and lazy < private:
            found.append(Win("lazy", f"{words}: {_seconds(lazy)} (the fastest private copy: {_seconds(private)})"))
    return found + _beside_wins() + _consumer_wins()


def _tables() -> dict[tuple[str, str], Rows]:
    tables: Mapping[str, Any] = _report()["summary"]["medians"]
    keys = [(workload, state) for workload in WORKLOADS for state in ("warm", "cold")]
    return {key: tables[", ".join(key)] for key in keys if ", ".join(key) in tables}


def _report() -> Mapping[str, Any]:
    report: Mapping[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return report


def _cell(tables: Mapping[tuple[str, str], Rows], workload: str, name: str) -> str:
    cells = []
    for state in ("warm", "cold"):
        rows = tables.get((workload, state), {})
        best = min((row["touched_s"] for other, row in rows.items() if other in PRIVATE), default=0.0)
        if name in rows:
            seconds = rows[name]["touched_s"]
            cells.append(f"**{_seconds(seconds)}**" if seconds == best else _seconds(seconds))
    return " / ".join(cells) or "-"


def _first(rows: Rows, names: Iterable[str], figure: str, words: str, shown: Callable[[float], str]) -> list[Win]:
    ranked = sorted((rows[name][figure], name) for name in names if name in rows and figure in rows[name])
    if len(ranked) < 2:
        return []
    (best, name), (second, other) = ranked[:2]
    if second < _LEAD * best:
        return []
    return [Win(name, f"{words}: {shown(best)} (`{other}`: {shown(second)})")]


def _beside_wins() -> list[Win]:
    beside = _report()["summary"].get("beside", {})
    if not beside:
        return []
    ranked = sorted((beside[key]["late_p99_ms"], words) for words, key in _BESIDE.items())
    (best, words), (second, other) = ranked
    text = f"eight LoRAs in the background, an event loop late at p99: {best:.1f} ms ({other}: {second:.1f} ms)"
    return [Win(words, text)] if words == "eager" else []


def _consumer_wins() -> list[Win]:
    report = _report()
    fed = report["summary"].get("consumer", {})
    if not fed or fed["streaming"]["first_s"] > fed["auto"]["first_s"]:
        return []
    first, done = ([_seconds(fed[name][key]) for name in ("streaming", "auto")] for key in ("first_s", "done_s"))
    memory = f"{max(row['peak_bytes'] for row in report['window']) / 1e6:.0f} MB"
    words = "4 GB, cold, worked on one by one: {} of memory, and the first after {} (`auto`: {}); done after {} ({})"
    return [Win("streaming", words.format(memory, *first, *done))]


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _gigabytes(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB"
