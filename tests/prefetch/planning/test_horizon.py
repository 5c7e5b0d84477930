"""Horizon: a plan made in step with the queue is the plan of somebody who reads the whole queue anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warmstack.lora.file import AdapterKey, LoraFile
from warmstack.prefetch.planning.horizon import Horizon
from warmstack.prefetch.planning.plan import Fetch, Limits, Plan, Warm, tier_of
from warmstack.prefetch.queue.job import LoraReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds, Need, Resolution

FILES = [LoraFile(f"f{i}.safetensors", f"/loras/f{i}.safetensors", size, 1) for i, size in enumerate((0, 1, 5, 10, 40))]
USES = st.lists(st.tuples(st.sampled_from(FILES), st.booleans()), max_size=4)
KEYS = st.frozensets(st.sampled_from([file.key for file in FILES]))
BUDGETS = st.none() | st.integers(0, 80)


def needs(job_id: str, uses: Sequence[tuple[LoraFile, bool]]) -> JobNeeds:
    found = (Need(LoraReference(file.name, resident=ours), Resolution("found", file)) for file, ours in uses)
    return JobNeeds(QueuedJob(job_id, None), References(), tuple(found))


def planned_anew(jobs: Sequence[JobNeeds], limits: Limits, warm: Warm, nearest: int) -> Plan:
    """The definition: every use of every job, one after the other."""
    fetches: list[Fetch] = []
    wanted: dict[str, set[AdapterKey]] = {"resident": set(), "page": set()}
    left = {"resident": limits.resident_bytes or 0, "page": limits.page_bytes or 0}
    ended = {tier for tier, nbytes in left.items() if nbytes <= 0}
    next_uses: dict[AdapterKey, int] = {}
    for position, job in enumerate(jobs):
        for use in job.uses:
            page = None if limits.page_bytes is None else "page"
            tier = tier_of(use, limits, warm.no_room) if use.resident else page
            if use.resident:
                next_uses.setdefault(use.key, position)
            if tier is None or use.key in wanted[tier]:
                continue
            wanted[tier].add(use.key)
            left[tier] -= use.file.size_bytes
            if left[tier] < 0 and position > 0:
                ended.add(tier)
            too_deep = limits.depth_jobs is not None and position > limits.depth_jobs
            warmed = warm.resident if tier == "resident" else warm.pages
            if tier not in ended and not too_deep and use.key not in warmed and use.key not in warm.failed:
                fetches.append(Fetch(use.file, tier, position))  # type: ignore[arg-type]  # a key of `wanted`
    rest = tuple((fetch.file.size_bytes, fetch.position) for fetch in fetches[nearest:])
    return Plan(tuple(fetches[:nearest]), frozenset(wanted["resident"]), frozenset(wanted["page"]), next_uses, rest)


class Queue(RuleBasedStateMachine):
    """Any way in which a queue changes; after each, both plans are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.horizon = Horizon(nearest=3)
        self.jobs: list[JobNeeds] = []
        self.submitted = 0
        self.limits = Limits(30, 30)
        self.warm = Warm()

    @rule(uses=USES, front=st.booleans())
    def submit(self, uses: list[tuple[LoraFile, bool]], front: bool) -> None:
        self.submitted += 1
        self.jobs.insert(0 if front else len(self.jobs), needs(str(self.submitted), uses))

    @rule(count=st.integers(1, 3))
    def finish(self, count: int) -> None:
        del self.jobs[:count]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.jobs:
            del self.jobs[data.draw(st.integers(0, len(self.jobs) - 1))]

    @rule()
    def start(self) -> None:
        if self.jobs:
            self.jobs[0] = replace(self.jobs[0], job=replace(self.jobs[0].job, running=True))

    @rule(uses=USES, data=st.data())
    def resolve_anew(self, uses: list[tuple[LoraFile, bool]], data: st.DataObject) -> None:
        if self.jobs:
            place = data.draw(st.integers(0, len(self.jobs) - 1))
            self.jobs[place] = needs(self.jobs[place].job.job_id, uses)

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        self.jobs = list(data.draw(st.permutations(self.jobs)))

    @rule()
    def clear(self) -> None:
        self.jobs.clear()

    @rule(resident=BUDGETS, pages=BUDGETS, depth=st.none() | st.integers(0, 4))
    def limit(self, resident: int | None, pages: int | None, depth: int | None) -> None:
        self.limits = Limits(resident, pages, depth)

    @rule(resident=KEYS, pages=KEYS, failed=KEYS, no_room=KEYS)
    def warm_up(self, **warm: frozenset[AdapterKey]) -> None:
        self.warm = Warm(**warm)

    @invariant()
    def plans_are_the_same(self) -> None:
        self.horizon.follow(self.jobs)
        plan = self.horizon.plan(self.limits, self.warm)
        assert plan == planned_anew(self.jobs, self.limits, self.warm, 3)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


@given(st.lists(USES, max_size=6), BUDGETS, BUDGETS)
def test_a_queue_seen_once(queue: list[list[tuple[LoraFile, bool]]], resident: int | None, pages: int | None) -> None:
    jobs = [needs(str(i), uses) for i, uses in enumerate(queue)]
    horizon = Horizon(nearest=3)
    horizon.follow(jobs)
    limits = Limits(resident, pages)
    assert horizon.plan(limits, Warm()) == planned_anew(jobs, limits, Warm(), 3)
