"""What the commands show: tables whose cells are never cut; of a run, one over all passes and the totals."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Column, Table

from ..lora.cache.waits import Waits
from .report import RequestReport, RunReport

_COLOURS = {"hit": "green", "join": "yellow", "miss": "red"}


def table_of(*headers: str, title: str | None = None) -> Table:
    """A table that breaks what is too long for its column, where rich would cut it: half a name names nothing."""
    return Table(*(Column(header, overflow="fold") for header in headers), title=title)


def request_table(runs: Sequence[RunReport]) -> Table:
    """One row per request, a line per adapter; per pass how the adapter was found and how long it was waited for."""
    table = Table(title="Requests", title_justify="left", show_lines=True)
    table.add_column("request", overflow="fold")
    table.add_column("adapters", overflow="fold")
    for run in runs:
        table.add_column(run.mode)
        table.add_column("wait ms", justify="right")
    for requests in zip(*(run.requests for run in runs), strict=True):
        cells = [cell for request in requests for cell in _cells(request)]
        table.add_row(escape(requests[0].id), _adapters(requests[0]), *cells)
    return table


def totals_table(runs: Sequence[RunReport]) -> Table:
    table = Table(title="Totals", title_justify="left")
    table.add_column("")
    for run in runs:
        table.add_column(run.mode, justify="right")
    for label, values in _totals(runs):
        table.add_row(label, *values)
    if any(run.device is not None for run in runs):
        table.add_row("on the device, hit / join / miss", *map(_device, runs))
    return table


def _device(run: RunReport) -> str:
    if run.device is None:
        return "-"
    stats = run.device.stats
    return f"{stats.hits} / {stats.joins} / {stats.misses}"


def _totals(runs: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    stats = [run.cache.stats for run in runs]
    return [
        ("run", [f"{run.seconds:.1f} s" for run in runs]),
        ("waited for adapters", [f"{run.wait_s * 1000:.0f} ms" for run in runs]),
        ("half of them / 99% of them at most", [_quantiles(found.waits) for found in stats]),
        ("cold load time of the same adapters", [f"{found.load_s * 1000:.0f} ms" for found in stats]),
        ("hidden share", ["-" if s.hidden_share is None else f"{s.hidden_share:.1%}" for s in stats]),
        ("hit / join / miss", [f"{found.hits} / {found.joins} / {found.misses}" for found in stats]),
        ("read", [mebibytes(found.read_bytes) for found in stats]),
        ("read and never used", [mebibytes(found.wasted_bytes) for found in stats]),
        ("resident at most", [mebibytes(run.cache.peak_bytes) for run in runs]),
        ("failures", [str(len(run.failures)) for run in runs]),
    ]


def _quantiles(waits: Waits) -> str:
    p50_s, p99_s = waits.quantile_s(0.5), waits.quantile_s(0.99)
    return "-" if p50_s is None or p99_s is None else f"{p50_s * 1000:.1f} / {p99_s * 1000:.1f} ms"


def mebibytes(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.0f} MiB"


def _adapters(request: RequestReport) -> str:
    return "\n".join(escape(f"{lora.stem} {lora.strength_model:g}") for lora in request.loras) or "-"


def _cells(request: RequestReport) -> tuple[str, str]:
    if not request.ran:
        return "[yellow]not run[/yellow]", ""
    if request.problems:
        return "[red]failed[/red]", ""
    found = "\n".join(f"[{_COLOURS[lora.outcome]}]{lora.outcome}[/]" for lora in request.loras)
    return found or "-", "\n".join(f"{lora.wait_s * 1000:.0f}" for lora in request.loras)
