"""What is told to Prometheus and to the log."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from warmstack.lora.cache.waits import BOUNDS_S, Waits, WaitTally
from warmstack.prefetch.reports.batch_line import BatchLog, batch_line
from warmstack.prefetch.reports.prometheus import prometheus_text
from warmstack.prefetch.status import PageStatus

from ..world import World

SAMPLE = re.compile(r'(warmstack_[a-z_]+)(?:\{([a-z]+="[^"]+"(?:,[a-z]+="[^"]+")*)\})? ([-+0-9.e]+)')


async def run_batch(world: World) -> None:
    names = [world.lora(name) for name in "abc"]
    world.submit("1", names[0], resident=True)
    world.submit("2", names[1])
    world.submit("3", names[2])
    await world.settle()
    for job_id in ("1", "2"):
        world.start(job_id)
        await world.settle()
        if job_id == "1":
            world.cache.acquire(world.catalog.find(names[0])).release()
        world.remove(job_id)
        if job_id == "2":
            world.remove("3")
        await world.settle()


async def test_every_line_is_valid_prometheus_text_and_names_no_file(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    await run_batch(world)
    text = prometheus_text(world.prefetcher.status(), world.cache.snapshot())
    samples = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            samples[match[1], match[2] or ""] = float(match[3])
    described = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter|histogram)$", text, re.MULTILINE))
    named = {re.sub("(?<=wait_seconds)_(bucket|sum|count)$", "", name) for name, _ in samples}
    assert described == named | {"warmstack_evictions_total"}
    assert samples["warmstack_adapter_demands_total", 'tier="resident",outcome="hit"'] == 1
    assert samples["warmstack_adapter_demands_total", 'tier="page",outcome="hit"'] == 1
    assert samples["warmstack_wasted_bytes_total", 'tier="page"'] > 4000
    assert samples["warmstack_demand_bytes_total", 'tier="resident"'] > 0
    assert samples["warmstack_predictor_active", ""] == 0
    assert "lora" not in text.replace("warmstack", "")
    await world.close()


async def test_a_batch_leaves_one_line_and_a_single_job_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path / "loras")
    with caplog.at_level(logging.INFO, "warmstack"):
        await run_batch(world)
        await world.settle()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 1
        assert lines[0].startswith("2 jobs: adapters 1 hit, 0 joined, 0 missed")
        assert "page cache 1 hit, 0 joined, 0 missed, 100% of" in lines[0]
        caplog.clear()
        world.submit("single", world.lora("d"))
        await world.settle()
        world.start("single")
        await world.settle()
        world.queue.clear()
        await world.settle()
        assert caplog.records == []
    await world.close()


def waited(*waits_s: float) -> Waits:
    tally = WaitTally()
    for wait_s in waits_s:
        tally.count(wait_s)
    return tally.waits()


async def test_a_batch_counts_from_where_the_last_ended(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    before = world.prefetcher.status()
    page = PageStatus(1, 0, 1, 4 << 20, 1 << 20)
    after = before._replace(
        hits=8, misses=2, wait_s=1.0, load_s=20.0, page=page, waits=waited(0.7, *[0.0] * 8, 0.3), read_bytes=1
    )
    assert batch_line(5, after, after, after.waits) is None
    assert batch_line(1, before, after, Waits()) is None
    assert batch_line(5, before, after, waited(0.7)) == (
        "5 jobs: adapters 8 hit, 0 joined, 2 missed, 95% of 20.0 s hidden, waits after the first job p50 0.1 ms, "
        "p99 500.0 ms; page cache 1 hit, 0 joined, 1 missed, 25% of 4 MiB in time; 0 MiB read in vain"
    )
    await world.close()


async def test_the_first_job_of_a_batch_is_counted_and_its_waits_are_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs before the first look at the queue and waits 3 s, the second waits for nothing; then all of it again."""
    world = World(tmp_path / "loras")
    blank, log = world.prefetcher.status(), BatchLog()
    waits: list[float] = []
    status = blank

    def look(queued_jobs: int) -> None:
        log.look(queued_jobs, waited(*waits), lambda: status)

    with caplog.at_level(logging.INFO, "warmstack"):
        look(0)
        for _ in range(2):
            log.count_starts(1)
            look(2)
            waits += [3.0]
            look(2)
            waits += [0.0]
            log.count_starts(1)
            look(1)
            status = status._replace(hits=status.hits + 1, misses=status.misses + 1, waits=waited(*waits))
            look(0)
            look(0)
    lines = [record.getMessage() for record in caplog.records]
    expected = "2 jobs: adapters 1 hit, 0 joined, 1 missed, waits after the first job p50 0.1 ms, p99 0.1 ms; 0 MiB"
    assert [line.startswith(expected) for line in lines] == [True, True]
    await world.close()


async def test_buckets_add_up_to_the_demands(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    status = world.prefetcher.status()._replace(waits=waited(0.0, 0.004, 0.005, 7.0, 1e6), wait_s=1000007.009)
    text = prometheus_text(status, world.cache.snapshot())
    buckets = re.findall(r'wait_seconds_bucket\{le="([^"]+)"\} (\d+)', text)
    assert [float(bound) for bound, _ in buckets] == [*BOUNDS_S, float("inf")]
    reached = dict(buckets)
    assert (reached["0.0001"], reached["0.002"], reached["0.005"], reached["10.0"]) == ("1", "1", "3", "4")
    assert reached["+Inf"] == "5"
    assert "warmstack_adapter_wait_seconds_count 5" in text
    assert "warmstack_adapter_wait_seconds_sum 1000007.009" in text
    await world.close()


async def test_the_status_tells_what_a_reader_of_metrics_needs(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    empty = json.loads(json.dumps(world.prefetcher.status().as_json()))
    assert (empty["hit_rate"], empty["amplification"], empty["wait_p50_s"], empty["wait_p99_s"]) == (None,) * 4
    name = world.lora("a")
    world.prefetcher._resolver.refresh()
    for _ in range(3):
        world.cache.acquire(world.catalog.find(name)).release()
    told = json.loads(json.dumps(world.prefetcher.status().as_json()))
    assert told["hit_rate"] == pytest.approx(2 / 3)
    assert told["amplification"] == pytest.approx(1 / 3)
    assert told["demand_bytes"] == 3 * told["read_bytes"] > 0
    assert told["wait_p50_s"] <= told["wait_p99_s"]
    assert (told["prefetched_bytes"], told["pollution"], "waits" in told) == (0, 0, False)
    await world.close()


@pytest.mark.parametrize(("limit", "then"), [(None, None), (1 << 40, 1 << 40), (1 << 40, None)])
async def test_a_page_read_tells_what_a_cold_one_costs_unless_it_was_held_back(
    tmp_path: Path, limit: int | None, then: int | None
) -> None:
    """For a part of the time at least."""
    world = World(tmp_path / "loras", read_limit_bytes_per_s=limit)
    name = world.lora("a")
    world.prefetcher._resolver.refresh()

    def take_a_second(path: str, done: int) -> None:
        world.now_s += 1
        world.prefetcher.configure(world.settings.updated({"read_limit_bytes_per_s": then}))

    world.on_chunk = take_a_second
    world.submit("1", name)
    await world.settle()
    assert world.page_reads == [world.path(name)]
    world.cache.acquire(world.catalog.find(name)).release()
    assert (world.cache.stats().load_s > 0) == (limit is None)
    await world.close()
