"""The runtime on the real catalog, cache and prefetcher, behind a fake host: complete, persistent, and soft to fail."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import LoadingMetrics, RateLimit
from warmstack.nodes.api.adapter_query import AdapterQuery
from warmstack.nodes.api.request_body import RequestError
from warmstack.nodes.runtime import Runtime
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.queue.job import QueuedJob

from .plain_host import PlainHost, stack_prompt


def test_a_runtime_that_never_ran_still_finds_and_loads(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    with runtime.cache.acquire(runtime.catalog.find("oil")) as lease:
        assert lease.outcome == "miss"
    assert runtime.status()["adapters"][0]["name"] == "styles/oil.safetensors"
    runtime.close()


def test_the_revision_grows_with_events_and_with_nothing_else(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    runtime.catalog.refresh()
    first = runtime.status()
    assert runtime.revision() == runtime.status()["revision"] == first["revision"]
    lease = runtime.cache.acquire(runtime.catalog.find("oil"))
    loaded = runtime.status()
    assert loaded["revision"] > first["revision"]
    lease.release()
    assert runtime.status()["revision"] > loaded["revision"]
    before = runtime.revision()
    runtime.configure({"depth_jobs": 3})
    assert runtime.revision() > before
    assert {runtime.status()["boot"], runtime.status()["boot"]} == {first["boot"]}
    assert Runtime(plain).status()["boot"] != first["boot"]
    runtime.close()


async def test_pages_that_were_warmed_by_hand_are_told(plain: PlainHost) -> None:
    """Else nobody would ask the table anew, which goes by the page cache itself."""
    runtime = Runtime(plain)
    runtime.configure({"budget_bytes": 0})
    running = asyncio.create_task(runtime.run())
    await until(lambda: runtime.cache.snapshot().limit_bytes == 0 and runtime.catalog.snapshot.files != ())
    before = runtime.revision()
    assert runtime.act("warm", ("oil",))["results"][0]["state"] == "loading"
    await until(lambda: runtime.status()["prefetch"]["page"]["warmed_bytes"])
    page, (row,) = runtime.status()["prefetch"]["page"], runtime.adapters(AdapterQuery(search="oil"))["adapters"]
    assert (page["warmed_bytes"], page["wasted_bytes"]) == (row["bytes"], 0)
    assert runtime.revision() > before
    runtime.close()
    await running


async def test_a_read_by_hand_and_one_ahead_share_the_limit(plain: PlainHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each under one of its own, the two would take twice what was allowed."""
    spent: list[RateLimit] = []
    spend = RateLimit.spend

    def noted(limit: RateLimit, *arguments: Any) -> None:
        spent.append(limit)
        spend(limit, *arguments)

    monkeypatch.setattr(RateLimit, "spend", noted)
    runtime = Runtime(plain)
    runtime.configure({"read_limit_bytes_per_s": 1 << 30})
    assert runtime.act("warm", ("oil",))["results"][0]["state"] == "loading"
    await until(lambda: spent)
    assert all(limit is runtime.prefetcher.limiter for limit in spent)
    runtime.configure({"read_limit_bytes_per_s": None})
    assert runtime.prefetcher.limiter is None
    runtime.close()


async def until(is_so: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


def test_what_the_model_loaders_did_stands_in_the_status(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    assert runtime.status()["loads"] == {}
    before = runtime.revision()
    for seconds in (1.0, 3.0):
        runtime.loads.record(LoadingMetrics("parallel", 2, 400, 1000, 1500, seconds, {"read": seconds / 2}))
    assert runtime.status()["loads"] == {
        "parallel": {
            "loads": 2,
            "loaded_bytes": 2000,
            "median_s": 2.0,
            "peak_bytes": 1500,
            "stages_s": {"read": 2.0},
        }
    }
    assert runtime.revision() > before
    runtime.close()


def test_no_path_leaves_in_a_status_a_plan_or_a_page(plain: PlainHost, tmp_path: Path) -> None:
    runtime = Runtime(plain)
    (tmp_path / "loras" / "broken.safetensors").write_bytes(b"\xff" * 100)
    runtime.catalog.refresh()
    lease = runtime.cache.acquire(runtime.catalog.find("oil"))
    answers = [
        runtime.status(),
        runtime.adapters(AdapterQuery()),
        runtime.plan(stack_prompt("oil", "ink", "gone", "broken")),
        runtime.act("warm", ("oil", "broken", "gone")),
    ]
    assert str(tmp_path) not in json.dumps(answers)
    lease.release()
    runtime.close()


def test_a_model_file_tells_its_base_model_and_no_path(plain: PlainHost, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "xl"
    folder.mkdir(parents=True)
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({key: torch.zeros(1, 2048)}, folder / "base.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "outside.safetensors").write_bytes((folder / "base.safetensors").read_bytes())
    runtime = Runtime(plain)
    assert runtime.base_model("checkpoints", "xl/base.safetensors")["base_model"] == "sdxl"
    for kind, name, status in [
        ("checkpoints", "xl/broken.safetensors", 400),
        ("checkpoints", "../outside.safetensors", 404),
        ("checkpoints", str(tmp_path / "outside.safetensors"), 404),
        ("diffusion_models", "xl/base.safetensors", 404),
    ]:
        with pytest.raises(RequestError) as refused:
            runtime.base_model(kind, name)
        assert refused.value.status == status
        assert str(tmp_path) not in str(refused.value).replace(name, "")
    runtime.close()


def test_settings_survive_a_restart_and_win_over_the_environment(
    plain: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMSTACK_CONCURRENCY", "4")
    monkeypatch.setenv("WARMSTACK_PREFETCH", "on")
    runtime = Runtime(plain)
    assert runtime.configure({"enabled": False, "budget_bytes": 1000})["kept"]
    again = Runtime(plain)
    assert (again.settings.enabled, again.settings.budget_bytes, again.settings.concurrency) == (False, 1000, 4)
    assert again.cache.snapshot().limit_bytes == 1000
    for one in (runtime, again):
        one.close()


async def test_the_budget_goes_back_to_automatic_without_a_restart(
    plain: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmstack.nodes.runtime.default_budget_bytes", lambda: 3000)
    before = Runtime(plain)
    before.configure({"budget_bytes": 5000, "headroom_bytes": 0})
    before.close()
    runtime = Runtime(plain)
    assert runtime.cache.snapshot().limit_bytes == 5000
    running = asyncio.create_task(runtime.run())
    runtime.configure({"budget_bytes": None})

    async def changed() -> None:
        while runtime.cache.snapshot().limit_bytes == 5000:
            runtime.wake()
            await asyncio.sleep(0.001)

    await asyncio.wait_for(changed(), 20)
    assert runtime.cache.snapshot().limit_bytes == 3000
    runtime.close()
    await running


def test_a_refused_setting_changes_nothing(plain: PlainHost) -> None:
    from warmstack.nodes.api.request_body import RequestError

    runtime = Runtime(plain)
    before = runtime.settings
    for changes in ({"budget_bytes": -1}, {"colour": 1}, {"enabled": False, "concurrency": 0}):
        with pytest.raises(RequestError):
            runtime.configure(changes)
    assert runtime.settings == before
    assert not (plain.folder / "state" / "settings.json").exists()
    runtime.close()


async def _is_short(runtime: Runtime) -> bool:
    """Whether memory is short for `runtime`; else it reads the LoRA of the job that waits."""
    running = asyncio.create_task(runtime.run())

    async def told() -> bool:
        while not (status := runtime.prefetcher.status()).under_pressure:
            if status.queue and status.queue[0].adapters[0].state == "ready":
                return False
            runtime.wake()
            await asyncio.sleep(0.001)
        return True

    try:
        return await asyncio.wait_for(told(), 20)
    finally:
        runtime.close()
        await running


@pytest.fixture
def short_host(plain: PlainHost, monkeypatch: pytest.MonkeyPatch) -> PlainHost:
    """It wants 6 GiB to stay free, and 4 are."""
    plain.jobs = (QueuedJob("1", (stack_prompt("oil"), None)),)
    monkeypatch.setattr("warmstack.nodes.runtime.Machine", partial(Machine, available_bytes=lambda: 4 << 30))
    return plain


async def test_ours_yields_memory_before_the_host_does(short_host: PlainHost) -> None:
    assert await _is_short(Runtime(short_host))
    short_host.kept_free_bytes = 0
    assert not await _is_short(Runtime(short_host))


async def test_what_the_host_comes_to_keep_free_is_followed(short_host: PlainHost) -> None:
    runtime = Runtime(short_host)
    running = asyncio.create_task(runtime.run())
    for kept_free_bytes, is_short in ((3 << 30, False), (6 << 30, True), (3 << 30, False)):
        short_host.kept_free_bytes = kept_free_bytes
        await until(lambda is_short=is_short: _looks_short(runtime) == is_short)
    runtime.close()
    await running


def _looks_short(runtime: Runtime) -> bool:
    # Settings of their own, since it looks at once when they are others, and else when seconds have passed.
    runtime.prefetcher.configure(replace(runtime.settings))
    return runtime.prefetcher.status().under_pressure


@pytest.mark.parametrize("said", ["1GiB", "3 GiB"])
async def test_memory_to_leave_free_is_what_was_said(
    short_host: PlainHost, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("WARMSTACK_HEADROOM", said)
    assert not await _is_short(Runtime(short_host))


async def test_memory_to_leave_free_goes_back_to_the_hosts_own(short_host: PlainHost) -> None:
    told = Runtime(short_host)
    told.configure({"headroom_bytes": "1 GiB"})
    assert not await _is_short(told)
    again = Runtime(short_host)
    again.configure({"headroom_bytes": None})
    assert await _is_short(again)
    assert await _is_short(Runtime(short_host))


def test_a_host_without_memory_or_state_is_enough(plain: PlainHost) -> None:
    def refuse() -> Path:
        raise PermissionError("read-only")

    plain.state, plain.memory_fails = refuse, True
    runtime = Runtime(plain)
    assert runtime.status()["memory"] == {}
    assert runtime.configure({"enabled": False}) == {"settings": runtime.settings.as_json(), "kept": False}
    runtime.cache.acquire(runtime.catalog.find("oil")).release()
    runtime.close()


def test_releasing_drops_what_nobody_uses(plain: PlainHost) -> None:
    runtime = Runtime(plain)
    held = runtime.cache.acquire(runtime.catalog.find("oil"))
    runtime.cache.acquire(runtime.catalog.find("styles/ink")).release()
    runtime.release()
    snapshot = runtime.cache.snapshot()
    assert [view.name for view in snapshot.adapters] == ["styles/oil.safetensors"]
    held.release()
    del held
    assert runtime.cache.snapshot().used_bytes == 0
    runtime.close()


@pytest.mark.parametrize(
    ("memory_fails", "problem"),
    [
        (False, "the host brings patches to the device itself (dynamic VRAM)"),
        (True, "the host does not tell how it uses its device"),
    ],
)
def test_the_status_says_why_nothing_is_kept_on_the_device(plain: PlainHost, memory_fails: bool, problem: str) -> None:
    plain.memory_fails = memory_fails
    runtime = Runtime(plain)
    runtime.configure({"device_tier": True})
    device = runtime.status()["prefetch"]["device"]
    assert (device["state"], device["problem"]) == ("refused", problem)
    runtime.close()


def test_the_steps_of_the_host_reach_the_prefetcher_and_a_host_without_them_costs_only_this(plain: PlainHost) -> None:
    machine = Runtime(plain).prefetcher._machine
    assert (machine.progress(), machine.state_folder) == (0.25, plain.folder / "state")
    plain.memory_fails = True
    assert machine.progress() is None
