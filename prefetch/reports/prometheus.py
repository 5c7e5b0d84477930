"""The numbers of prefetcher and cache in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from ...lora.cache.waits import BOUNDS_S
from ..device_status import DeviceStatus
from ..planning.predictor import PredictorStats
from ..status import PageStatus, PrefetchStatus

if TYPE_CHECKING:
    from ...lora.cache.cache_stats import CacheSnapshot, CacheStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


Labels = tuple[tuple[str, str], ...]


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    samples: Mapping[tuple[str, Labels], float]
    """By suffix of the name and labels."""


def prometheus_text(status: PrefetchStatus, cached: CacheSnapshot) -> str:
    """Counters since the start and gauges of this moment. Labels are of a fixed set: never a file, a job or a path."""
    lines: list[str] = []
    for metric in _metrics(status, cached):
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        for (suffix, labels), value in metric.samples.items():
            inside = ",".join(f'{label}="{text}"' for label, text in labels)
            name = f"{metric.name}{suffix}"
            lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _metrics(status: PrefetchStatus, cached: CacheSnapshot) -> Iterator[_Metric]:
    loading = [fetch.tier for fetch in status.in_flight]
    yield _one("prefetch_enabled", "gauge", "1 while the queue is read ahead.", status.enabled)
    yield _one("memory_pressure", "gauge", "1 while memory is short and the budget cut.", status.under_pressure)
    yield _one("queue_jobs", "gauge", "Jobs in the queue, the running one included.", status.queued_jobs)
    yield from _demand_metrics(status)
    yield from _traffic_metrics(status.page, cached.stats)
    yield _by(
        "reads_in_flight",
        "gauge",
        "Files being read ahead.",
        {(("tier", tier),): loading.count(tier) for tier in ("resident", "page", "model")},
    )
    yield from _model_metrics(status.models)
    yield from _device_metrics(status.device)
    yield from _cache_metrics(cached)
    yield from _predictor_metrics(status.predictor)


def _demand_metrics(status: PrefetchStatus) -> Iterator[_Metric]:
    page = status.page
    demands = {
        ("resident", "hit"): status.hits,
        ("resident", "join"): status.joins,
        ("resident", "miss"): status.misses,
    }
    demands |= {("page", "hit"): page.hits, ("page", "join"): page.joins, ("page", "miss"): page.misses}
    there = status.device
    demands |= {("device", "hit"): there.hits, ("device", "join"): there.joins, ("device", "miss"): there.misses}
    yield _by(
        "adapter_demands_total",
        "counter",
        "Adapters that jobs asked for, by what they met.",
        {(("tier", tier), ("outcome", outcome)): count for (tier, outcome), count in demands.items()},
    )
    yield _wait_histogram(status)
    yield _one(
        "adapter_load_seconds_total", "counter", "Time that they would have been without a cache.", status.load_s
    )


def _wait_histogram(status: PrefetchStatus) -> _Metric:
    reached = accumulate(status.waits.counts)
    bounds = [*map(repr, BOUNDS_S), "+Inf"]
    samples: dict[tuple[str, Labels], float] = {
        ("_bucket", (("le", bound),)): count for bound, count in zip(bounds, reached, strict=True)
    }
    samples["_sum", ()], samples["_count", ()] = status.wait_s, status.waits.demands
    return _Metric("warmstack_adapter_wait_seconds", "histogram", "Time that jobs were blocked by an adapter.", samples)


def _traffic_metrics(page: PageStatus, stats: CacheStats) -> Iterator[_Metric]:
    yield _tiers("demand_bytes_total", "counter", "Bytes that jobs asked for.", stats.demand_bytes, page.demand_bytes)
    yield _tiers("read_bytes_total", "counter", "Bytes read for them or ahead.", stats.read_bytes, page.warmed_bytes)
    yield _tiers("read_seconds_total", "counter", "Time that those reads took.", stats.read_s, page.warmed_s)
    yield _tiers("warmed_bytes_total", "counter", "Bytes read ahead.", stats.prefetched_bytes, page.warmed_bytes)
    yield _tiers(
        "wasted_bytes_total", "counter", "Bytes read ahead that nobody used.", stats.wasted_bytes, page.wasted_bytes
    )


def _device_metrics(device: DeviceStatus) -> Iterator[_Metric]:
    yield _one("device_tier", "gauge", "1 while adapters are kept on the device.", device.state == "on")
    kept = {"used": device.used_bytes, "limit": device.limit_bytes, "peak": device.peak_bytes}
    yield _by(
        "device_bytes",
        "gauge",
        "Device memory of kept adapters.",
        {(("kind", kind),): nbytes for kind, nbytes in kept.items()},
    )
    yield _one("pinned_bytes", "gauge", "Pinned host memory for uploads.", device.pinned_bytes)
    sent = {"sent": device.uploaded_bytes, "ahead": device.prefetched_bytes, "unused": device.wasted_bytes}
    yield _by(
        "device_upload_bytes_total",
        "counter",
        "Bytes sent to the device, those of them sent ahead, and those of these that nobody used.",
        {(("kind", kind),): nbytes for kind, nbytes in sent.items()},
    )


def _model_metrics(models: PageStatus) -> Iterator[_Metric]:
    outcomes = {"hit": models.hits, "join": models.joins, "miss": models.misses}
    yield _by(
        "model_demands_total",
        "counter",
        "Model files that jobs needed beyond those of the job before, by what they met in the page cache.",
        {(("outcome", outcome),): count for outcome, count in outcomes.items()},
    )
    demanded = {"demanded": models.demand_bytes, "in_time": models.hit_bytes}
    yield _by(
        "model_demand_bytes_total",
        "counter",
        "Bytes of those files, and how many were in the page cache in time.",
        {(("part", part),): count for part, count in demanded.items()},
    )
    yield _one("model_warmed_bytes_total", "counter", "Bytes of model files read ahead.", models.warmed_bytes)
    yield _one("model_wasted_bytes_total", "counter", "Of those, bytes that nobody used.", models.wasted_bytes)


def _cache_metrics(cached: CacheSnapshot) -> Iterator[_Metric]:
    stats = cached.stats
    budget = {"limit": cached.limit_bytes, "used": cached.used_bytes, "peak": cached.peak_bytes}
    budget["spare"] = cached.spare_bytes
    yield _by(
        "budget_bytes", "gauge", "The resident tier's budget.", {(("part", part),): n for part, n in budget.items()}
    )
    yield _by(
        "evictions_total",
        "counter",
        "Adapters dropped, by reason.",
        {(("reason", reason),): count for reason, count in sorted(stats.evictions.items())},
    )
    yield _one(
        "pollution_total",
        "counter",
        "Misses that an LRU cache of the same size without prefetch would have spared.",
        stats.pollution,
    )
    yield _one("remembered_failures", "gauge", "Files that are not tried again until they change.", stats.failures)


def _predictor_metrics(predictor: PredictorStats) -> Iterator[_Metric]:
    judged = {"right": predictor.hits, "wrong": predictor.checked - predictor.hits}
    yield _one("predictor_active", "gauge", "1 while guesses beyond the queue are good enough.", predictor.active)
    yield _by(
        "predictor_guesses",
        "gauge",
        "The last guesses that came out, right or wrong.",
        {(("verdict", verdict),): count for verdict, count in judged.items()},
    )


def _one(name: str, kind: str, text: str, value: float) -> _Metric:
    return _by(name, kind, text, {(): value})


def _tiers(name: str, kind: str, text: str, resident: float, page: float) -> _Metric:
    return _by(name, kind, text, {(("tier", "resident"),): resident, (("tier", "page"),): page})


def _by(name: str, kind: str, text: str, samples: Mapping[Labels, float]) -> _Metric:
    return _Metric(f"warmstack_{name}", kind, text, {("", labels): value for labels, value in samples.items()})


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
