"""A queued batch on the real host: warm before its turn, the same pictures, cancelled and released when asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostkit.client import HostClient
from hostkit.graphs import flux_graph
from hostkit.models import lora_path
from hostkit.queue_run import Batch, BatchRun, drop_pages, hold_for, prepare, run_batch
from hostkit.server import HostInstall
from hostkit.tiny_lora import flux_rank_for, write_flux_lora

from .patience import until

ROOT = "/warmstack/v1"
BIG = "queue/big.safetensors"


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Batch]]:
    """24 jobs, each with a LoRA of its own, each at least three times as long as its cold read."""
    base = tmp_path_factory.mktemp("batch")
    batch = Batch(jobs=24, lora_bytes=96_000_000, hold_s=0.0)
    prepare(base, batch)
    yield base, replace(batch, hold_s=max(0.5, hold_for(base, batch, 4)))
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def runs(install: HostInstall, batch: tuple[Path, Batch]) -> Callable[[str, bool], BatchRun]:
    done: dict[tuple[str, bool], BatchRun] = {}

    def run(loader: str, prefetch: bool) -> BatchRun:
        if (loader, prefetch) not in done:
            done[loader, prefetch] = run_batch(install, *batch, loader, prefetch=prefetch)
        return done[loader, prefetch]

    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestBatch:
    def test_no_picture_depends_on_the_prefetch_or_the_loader(self, runs: Any) -> None:
        pictures = runs("stock", False).digests
        assert len(set(pictures)) == 24
        for loader, prefetch in (("stock", True), ("stack", False), ("stack", True)):
            assert runs(loader, prefetch).digests == pictures, (loader, prefetch)

    def test_our_loads_are_hidden_after_the_first_job(self, runs: Any) -> None:
        run = runs("stack", True)
        assert run.own_hidden_share >= 0.95
        assert run.status["prefetch"]["misses"] <= 1
        assert runs("stack", False).status["prefetch"]["misses"] == 24

    def test_stock_loaders_find_their_files_warm(self, runs: Any) -> None:
        run = runs("stock", True)
        assert run.own_page_share >= 0.95
        assert run.status["prefetch"]["misses"] == 0, "the resident tier is for our nodes"

    @pytest.mark.parametrize("loader", ["stock", "stack"])
    def test_the_batch_is_faster(self, runs: Any, loader: str) -> None:
        assert runs(loader, True).median_s < runs(loader, False).median_s


@pytest.fixture
def slow_reads(client: HostClient, host_base: Path) -> Iterator[None]:
    """A cold 24 MB file that takes a minute to read ahead."""
    path = lora_path(host_base, BIG)
    write_flux_lora(path, seed=77, rank=flux_rank_for(24_000_000), dtype="float32")
    drop_pages(path)
    client.post(f"{ROOT}/settings", {"read_limit_bytes_per_s": 400_000})
    client.post(f"{ROOT}/evict", {"names": [BIG]})  # a new name makes the catalog look
    yield
    client.post(f"{ROOT}/settings", {"read_limit_bytes_per_s": None})
    client.post("/queue", {"clear": True})
    client.post("/interrupt", {})
    path.unlink()


@pytest.mark.parametrize("how", ["delete", "clear"])
@pytest.mark.parametrize("loader", ["stock", "stack"])
def test_what_leaves_the_queue_is_no_longer_read(client: HostClient, slow_reads: None, how: str, loader: str) -> None:
    running = client.queue(flux_graph(hold_s=8, tag=f"{how} {loader}"))
    waiting = client.queue(flux_graph([(BIG, 1.0, 0.0)], loader=loader))
    until(client, lambda status: BIG in _in_flight(status))
    client.post("/queue", {"delete": [waiting]} if how == "delete" else {"clear": True})
    # The reader is told to stop at once and drops what it had within a chunk.
    status = until(client, lambda status: not _in_flight(status) and BIG not in _adapters(status))
    assert [job["job_id"] for job in status["queue"]] == [running], "the read ended before the running job did"
    client.post("/interrupt", {})
    client.wait([running])


def test_freeing_memory_lets_go_of_every_adapter(client: HostClient) -> None:
    rows = [(f"flux/native{index}.safetensors", 1.0, 0.0) for index in range(4)]
    client.run(flux_graph(rows, loader="stack", math="fused", tag="free"))
    assert client.get(f"{ROOT}/status")["budget"]["used_bytes"] > 0
    client.post("/free", {"unload_models": True, "free_memory": True})
    status = until(client, lambda status: status["budget"]["used_bytes"] == 0)
    assert status["adapters"] == []
    (again,) = client.run(flux_graph(rows, loader="stack", math="fused", tag="after free"))
    assert again.status == "success"


def _adapters(status: dict[str, Any]) -> set[str]:
    return {row["name"] for row in status["adapters"]}


def _in_flight(status: dict[str, Any]) -> set[str]:
    return {fetch["name"] for fetch in status["prefetch"]["in_flight"]}
