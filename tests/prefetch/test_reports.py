"""What is told to Prometheus and to the log."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from warmstack.prefetch.batch_line import batch_line
from warmstack.prefetch.prometheus import prometheus_text
from warmstack.prefetch.status import PageStatus

from .world import World

SAMPLE = re.compile(r'(warmstack_[a-z_]+)(?:\{([a-z]+="[a-z_]+"(?:,[a-z]+="[a-z_]+")*)\})? ([-+0-9.e]+)')


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
    described = set(re.findall(r"^# TYPE (\S+) (?:gauge|counter)$", text, re.MULTILINE))
    assert described == {name for name, _ in samples} | {"warmstack_evictions_total"}
    assert samples["warmstack_adapter_demands_total", 'tier="resident",outcome="hit"'] == 1
    assert samples["warmstack_adapter_demands_total", 'tier="page",outcome="hit"'] == 1
    assert samples["warmstack_wasted_bytes_total", 'tier="page"'] > 4000
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


async def test_a_batch_counts_from_where_the_last_ended(tmp_path: Path) -> None:
    world = World(tmp_path / "loras")
    before = world.prefetcher.status()
    after = before._replace(hits=8, misses=2, wait_s=1.0, load_s=20.0, page=PageStatus(1, 0, 1, 4 << 20, 1 << 20))
    assert batch_line(5, after, after) is None
    assert batch_line(1, before, after) is None
    assert batch_line(5, before, after) == (
        "5 jobs: adapters 8 hit, 0 joined, 2 missed, 95% of 20.0 s hidden; "
        "page cache 1 hit, 0 joined, 1 missed, 25% of 4 MiB in time; 0 MiB read in vain"
    )
    await world.close()
