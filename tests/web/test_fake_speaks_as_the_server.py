"""The fake backend, against which the panel is tested, says nothing that the real one does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.cache_stats import AdapterView, CacheSnapshot, CacheStats
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.file import LoraFile
from warmstack.nodes.api.actions import Actions
from warmstack.nodes.api.adapter_query import AdapterQuery
from warmstack.nodes.api.adapter_table import AdapterTable
from warmstack.nodes.api.status_json import Moment, plan_json, status_json
from warmstack.nodes.server.memory_state import DeviceMemory, MemoryState
from warmstack.prefetch.settings import PrefetchSettings
from warmstack.prefetch.status import (
    AdapterStatus,
    FetchStatus,
    JobRecord,
    JobStatus,
    PageStatus,
    PlannedLora,
    PrefetchStatus,
)

from .browser_kit.fake_backend import FakeBackend, Row

FILE = LoraFile(name="styles/ink.safetensors", path="/x/styles/ink.safetensors", size_bytes=9, mtime_ns=1)


@pytest.fixture
def prefetch() -> PrefetchStatus:
    job = JobStatus("j", True, (AdapterStatus(FILE.name, "ready", "page", 9),))
    fetch = FetchStatus(FILE.name, "resident", 1, 9)
    return PrefetchStatus(
        revision=1, enabled=True, hits=1, joins=0, misses=0, wait_s=0.0, load_s=1.0, hidden_share=1.0, wasted_bytes=0,
        page=PageStatus(), under_pressure=False, in_flight=(fetch,), queued_jobs=1, queue=(job,),
        history=(JobRecord("i", 0.0, 1, 0, 0, 0.0, 1.0, 0, 0, 0),),
    )  # fmt: skip


@pytest.fixture
def cache() -> CacheSnapshot:
    view = AdapterView(FILE.key, FILE.name, 9, "ready", pinned=True, next_use=None)
    stats = CacheStats(
        hits=0,
        joins=0,
        misses=0,
        wait_s=0,
        load_s=0,
        read_bytes=0,
        prefetched_bytes=0,
        wasted_bytes=0,
        failures=0,
        evictions={},
    )
    return CacheSnapshot(revision=1, limit_bytes=9, used_bytes=9, peak_bytes=9, adapters=(view,), stats=stats)


def test_status(backend: FakeBackend, prefetch: PrefetchStatus, cache: CacheSnapshot) -> None:
    backend.finish_jobs(1)
    memory = MemoryState(2, 1, 1, 1, (DeviceMemory("cuda:0", 2, 1),))
    settings = PrefetchSettings().as_json()
    moment = Moment(prefetch, cache, 1, 1, settings, memory, 0.0)
    real = status_json(moment, "boot", 1, lambda _name: FILE)
    assert unknown(backend.status(), real) == []


def test_adapters(backend: FakeBackend, prefetch: PrefetchStatus, cache: CacheSnapshot) -> None:
    real = AdapterTable([FILE], cache, prefetch, lambda _path: 0).page(AdapterQuery())
    fake = backend.adapters(AdapterQuery())
    # `idle_s` is told of what is in memory; the table leaves it out.
    assert [path for path in unknown(fake, real) if not path.endswith(".idle_s")] == []


def test_plan(backend: FakeBackend) -> None:
    real = plan_json([PlannedLora("ink", "missing", "", None, 0)])
    fake = backend.plan({"1": {"inputs": {"loras": "<lora:styles/linocut:1>"}}}, None)
    assert unknown(fake, real) == []


def test_actions(tmp_path: Path) -> None:
    save_file({"x.lora_A.weight": torch.ones(2, 8), "x.lora_B.weight": torch.ones(8, 2)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.zeros(4)}, tmp_path / "b.pt")
    catalog = LoraCatalog(lambda: [str(tmp_path)])
    cache = AdapterCache(ByteBudget(1 << 20))
    real = Actions(catalog, cache, lambda: None)
    fake = FakeBackend([Row("a.safetensors", 9), Row("b.pt", 9)])
    for verb, name in (
        ("evict", "a.safetensors"), ("warm", "a.safetensors"), ("warm", "a.safetensors"), ("pin", "a.safetensors"),
        ("evict", "a.safetensors"), ("unpin", "a.safetensors"), ("evict", "a.safetensors"), ("warm", "b.pt"),
    ):  # fmt: skip
        assert told(fake.act(verb, (name,))["results"]) == told(real.act(verb, [name])), verb
        if verb == "warm" and name == "a.safetensors":
            cache.acquire(catalog.find(name)).release()  # waits for the read
    real.close()


def told(rows: Any) -> list[tuple[object, ...]]:
    return [(row["file"], row["state"], row.get("pinned"), "reason" in row) for row in rows]


def unknown(fake: object, real: object, at: str = "") -> list[str]:
    """Paths of keys in `fake` that `real` lacks; of lists the first items are compared."""
    if isinstance(fake, Mapping) and isinstance(real, Mapping):
        missing = [f"{at}.{key}" for key in fake if key not in real]
        return missing + [path for key in fake if key in real for path in unknown(fake[key], real[key], f"{at}.{key}")]
    if isinstance(fake, list) and isinstance(real, list) and real:
        return [path for item in fake for path in unknown(item, real[0], f"{at}[]")]
    return []
