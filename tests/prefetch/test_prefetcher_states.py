"""Whatever happens to queue, files, memory and settings, in any order: the invariants hold after every step.

| Invariant of the design | Held here by |
|---|---|
| 1, 4 what is handed out is the file's content | `what_is_leased_is_what_was_written`, `collect` |
| 3 the ceiling, the running job's adapters | `the_budget_is_kept`, `nothing_in_use_is_taken`, `check_no_harm` |
| 4 one load per file, every waiter wakes | `one_load_per_content`, `Demand.join` |
| 4 a failure is remembered until the file changes | `a_failure_is_met_once`, `check_failure`, `check_refusal` |
| 5 no pickle, nothing outside the folders | `only_adapters_in_the_folders_are_opened` |
| 6 nothing raises into the host | `nothing_is_raised_into_the_host`, `check_refusal` |
| 7 nothing is held after the end or `/free` | `free`, `check_end`, `after_the_end_nothing_is_left` |
"""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from warmstack.lora.cache.cache_stats import AdapterView
from warmstack.lora.library.file import AdapterKey
from warmstack.prefetch.queue.board import JOBS_IN_SIGHT
from warmstack.prefetch.queue.scan import REFRESH_S

from .choices import BUDGET_BYTES, NAMES, PLENTY_BYTES
from .demands import is_content
from .prefetcher_machine import PrefetcherMachine


class CheckedPrefetcher(PrefetcherMachine):
    """The rules with everything that must hold after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[AdapterKey, AdapterView] = {}
        self.used_bytes = 0

    @rule()
    def everything_that_is_needed_gets_warm_when_nothing_else_happens(self) -> None:
        """Files that are there and whole, as far as the tiers and their budgets reach."""
        world = self.world
        if not self.is_running:
            return
        world.available_bytes = PLENTY_BYTES
        self.unreadable.clear()
        world.prefetcher.configure(world.settings)
        for _ in range(6):
            world.now_s += REFRESH_S
            self.read_everything()
        assert world.budget.limit_bytes == BUDGET_BYTES
        assert not self.reads.under_way
        for job in world.prefetcher.status().queue:
            for adapter in job.adapters:
                if adapter.tier == "page" and adapter.state != "failed":
                    assert adapter.state == "ready", (job, adapter)
                if adapter.state == "failed":
                    self.check_failure(adapter.name)
        first = next(iter(world.prefetcher.status().queue), None)
        for adapter in first.adapters if first else ():
            assert adapter.name == "old.pt" or adapter.state in ("ready", "failed", "missing"), first

    def read_everything(self) -> None:
        self.settle()
        while self.reads.waiting or self.reads.held:
            if self.reads.waiting:
                self.begin_a_read()
            if self.reads.held:
                self.reads.end(0)
            self.settle()

    def check_failure(self, name: str) -> None:
        key = self.key_on_disk(name)
        is_whole = key is None or b"lora_unet_x" in self.world.written[key]
        assert not is_whole or key in self.failed_page_reads, f"{name} is whole and was given up"

    @invariant()
    def everything_holds(self) -> None:
        """One invariant, so that a failing run reads as the list of its steps."""
        self.what_is_leased_is_what_was_written()
        self.the_budget_is_kept()
        self.nothing_in_use_is_taken()
        self.every_lease_is_counted_once()
        self.one_load_per_content()
        self.a_failure_is_met_once()
        self.only_adapters_in_the_folders_are_opened()
        self.nothing_is_raised_into_the_host()
        self.only_what_somebody_wants_is_read()
        self.what_is_kept_over_restarts_is_plain()
        if self.is_running:
            self.the_status_is_plain_and_honest()
        else:
            self.after_the_end_nothing_is_left()

    def what_is_leased_is_what_was_written(self) -> None:
        assert all(is_content(lease, self.world.written) for lease in self.leases)

    def the_budget_is_kept(self) -> None:
        """More than the limit is reserved only by what was there before the limit fell, and is still in use."""
        used_bytes = self.world.budget.used_bytes
        assert used_bytes == self.load.live_bytes + self.load.reserved_bytes
        assert used_bytes <= max(self.world.budget.limit_bytes, self.used_bytes)
        self.used_bytes = used_bytes

    def nothing_in_use_is_taken(self) -> None:
        after = self.residents()
        for key, view in self.before.items():
            if key not in after and self.is_current(key):
                # A pin keeps what is resident; what is streamed, or was dropped, lives with its leases.
                assert not view.pinned or view.storage == "mapped" or key in self.dropped, view
                assert not any(lease.adapter.key == key for lease in self.leases), view
        self.before = after

    def every_lease_is_counted_once(self) -> None:
        stats = self.world.cache.stats()
        assert stats.hits + stats.joins + stats.misses == self.taken
        for key, view in self.residents().items():
            # A user of streamed views keeps those; what is read into memory beside them has users of its own.
            same = [lease.adapter for lease in self.leases if lease.adapter.key == key]
            assert view.leases == sum(adapter.storage == view.storage for adapter in same)

    def one_load_per_content(self) -> None:
        assert self.load.most_active <= 1

    def a_failure_is_met_once(self) -> None:
        assert max(self.load.failures.values(), default=0) <= 1, self.load.failures
        assert max(self.failed_page_reads.values(), default=0) <= 1, self.failed_page_reads

    def only_adapters_in_the_folders_are_opened(self) -> None:
        forbidden = {self.world.path("old.pt"), str(self.folder / "outside" / "secret.safetensors")}
        assert not self.log.opened() & forbidden

    def nothing_is_raised_into_the_host(self) -> None:
        assert self.raised == []
        if self.is_running:
            assert self.world.task is not None
            assert not self.world.task.done()

    def only_what_somebody_wants_is_read(self) -> None:
        status = self.world.prefetcher.status()
        wanted = {name for name in NAMES for job in self.world.queue if name in json.dumps(job.payload)}
        if self.world.prefetcher.settings.predict:
            wanted |= {name for chosen, _ in self.named.values() for name in chosen}
        assert {fetch.name.removesuffix(".safetensors") for fetch in status.in_flight} <= wanted
        if not status.enabled:
            assert status.in_flight == ()

    def what_is_kept_over_restarts_is_plain(self) -> None:
        kept = self.folder / "state" / "habits.json"
        if kept.exists():
            used = {name for run in json.loads(kept.read_bytes())["runs"] for name, _ in run["loras"]}
            assert used <= {f"{name}.safetensors" for name in NAMES}

    def after_the_end_nothing_is_left(self) -> None:
        assert self.world.prefetcher.status().in_flight == ()
        assert not self.reads.waiting
        assert not self.reads.under_way
        assert not asyncio.all_tasks(self.loop)
        assert self.load.reserved_bytes == 0

    def the_status_is_plain_and_honest(self) -> None:
        status = self.world.prefetcher.status()
        assert str(self.folder) not in json.dumps(status)
        if self.last is not None:
            assert status.revision >= self.last.revision
            if status.revision == self.last.revision:
                assert status == self.last
        self.last = status
        waste, warmed = status.page.wasted_bytes, status.page.warmed_bytes
        assert 0 <= waste <= warmed
        ids = [job.job_id for job in self.world.queue] if status.enabled else []
        assert [job.job_id for job in status.queue] == ids[:JOBS_IN_SIGHT]


TestPrefetcher = CheckedPrefetcher.TestCase
TestPrefetcher.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_at_length() -> None:
    run_state_machine_as_test(CheckedPrefetcher, settings=settings(max_examples=400, stateful_step_count=80))
