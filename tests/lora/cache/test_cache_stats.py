"""What AdapterCache tells of itself: reads, waits, waste, and snapshots that stay what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache

from ..cache_kit import Disk, House


def test_the_hidden_share_counts_cold_reads_of_what_was_demanded(house: House) -> None:
    warm, cold = house.disk.write("w.safetensors"), house.disk.write("c.safetensors")
    house.cache.record_cold_read(warm.key, 0.75)
    house.cache.record_cold_read(warm.key, 0.01)
    house.cache.record_cold_read(house.disk.write("other.safetensors").key, 99.0)
    assert house.cache.stats().hidden_share is None
    house.cache.prefetch(warm)
    house.cache.acquire(warm).release()
    stats = house.cache.stats()
    assert stats.load_s == pytest.approx(0.75, abs=0.01)
    assert stats.hidden_share == pytest.approx(1 - stats.wait_s / stats.load_s)
    house.cache.acquire(cold).release()
    assert house.cache.stats().load_s > stats.load_s


def test_bytes_prefetched_for_nothing_are_counted_once(house: House) -> None:
    used, unused = house.disk.write("u.safetensors"), house.disk.write("n.safetensors")
    for file in (used, unused):
        assert house.cache.prefetch(file) == "ready"
    house.cache.acquire(used).release()
    house.cache.clear()
    stats = house.cache.stats()
    assert stats.wasted_bytes == unused.size_bytes
    assert stats.evictions == {"clear": 2}
    assert stats.prefetched_bytes == stats.read_bytes > 0


def test_a_read_that_was_held_back_is_not_a_slow_disk(tmp_path: Path) -> None:
    """Otherwise a read limit would flatter the hidden share: no demand would have waited that long."""
    now_s = [0.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    file = Disk(tmp_path).write("a.safetensors")
    cache = AdapterCache(ByteBudget(1 << 20), clock=lambda: now_s[0])
    assert cache.prefetch(file, limiter=RateLimit(100.0, clock=lambda: now_s[0], sleep=sleep)) == "ready"
    assert now_s[0] > 10
    cache.acquire(file).release()
    assert cache.stats().load_s < 0.001


def test_a_snapshot_is_what_it_was(house: House) -> None:
    file = house.disk.write("a.safetensors")
    lease = house.cache.acquire(file)
    house.cache.plan_uses({file.key: 3})
    house.cache.pin(file.key)
    before = house.cache.snapshot()
    lease.release()
    house.cache.unpin(file.key)
    assert house.cache.snapshot().revision > before.revision
    (view,) = before.adapters
    assert (view.name, view.nbytes, view.state, view.storage) == (file.name, file.size_bytes, "ready", "private")
    assert (view.leases, view.pinned, view.hits, view.next_use) == (1, True, 1, 3)
    assert (before.used_bytes, before.limit_bytes) == (file.size_bytes, 1 << 20)
    assert house.cache.snapshot().revision == house.cache.snapshot().revision
