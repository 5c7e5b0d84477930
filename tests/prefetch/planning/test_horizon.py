"""Horizon: a plan made in step with the queue is the plan of somebody who reads the whole queue anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warmstack.lora.library.file import AdapterKey, LoraFile
from warmstack.prefetch.planning.horizon import SPILLED_JOBS, Horizon
from warmstack.prefetch.planning.plan import Fetch, Limits, Plan, Warm, tier_of
from warmstack.prefetch.queue.job import LoraReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds, Need, Resolution, Use

FILES = [
    LoraFile(f"f{i}.safetensors", f"/loras/f{i}.safetensors", size, 1) for i, size in enumerate((0, 1, 5, 10, 20, 40))
]
USES = st.lists(st.tuples(st.sampled_from(FILES), st.booleans()), max_size=4)
KEYS = st.frozensets(st.sampled_from([file.key for file in FILES]))
BUDGETS = st.none() | st.integers(0, 80)
Needed = tuple[tuple[int, int], Use]
"""A use, and the position of its job and its place there."""


def needs(job_id: str, uses: Sequence[tuple[LoraFile, bool]]) -> JobNeeds:
    found = (Need(LoraReference(file.name, via_cache=ours), Resolution("found", file)) for file, ours in uses)
    return JobNeeds(QueuedJob(job_id, None), References(), tuple(found))


def one_disk(_path: str) -> str:
    return "one"


def two_disks(path: str) -> str:
    return "large" if path in {file.path for file in FILES[4:]} else "small"


def planned_anew(
    jobs: Sequence[JobNeeds], limits: Limits, warm: Warm, nearest: int, disk_of: Callable[[str], str] = one_disk
) -> Plan:
    """The definition: every use of every job, one after the other."""
    uses = [((position, place), use) for position, job in enumerate(jobs) for place, use in enumerate(job.uses)]
    acquired = firsts(needed for needed in uses if needed[1].via_cache)
    read = firsts(needed for needed in uses if not needed[1].via_cache)
    resident = {key: need for key, need in acquired.items() if tier_of(need[1], limits, warm.no_room) == "resident"}
    out_of_reach = resident.keys() - within_reach(resident, limits.resident_bytes)
    pages = firsts(
        (ticket, use)
        for ticket, use in uses
        if not use.via_cache or use.key not in resident or (use.key in out_of_reach and ticket[0] <= SPILLED_JOBS)
    )
    if limits.page_bytes is None:
        pages = {}
    cold_resident = within_reach(resident, limits.resident_bytes) - warm.resident
    cold_pages = within_reach(pages, limits.page_bytes) - {*warm.pages, *(warm.resident - read.keys())}
    wanted = [(resident[key], "resident") for key in cold_resident] + [(pages[key], "page") for key in cold_pages]
    deepest = len(jobs) if limits.depth_jobs is None else limits.depth_jobs
    fetches = [
        Fetch(use.file, tier, ticket[0])  # type: ignore[arg-type]  # one of the two above
        for (ticket, use), tier in sorted(wanted, key=lambda need: need[0][0])
        if ticket[0] <= deepest and use.key not in warm.failed
    ]
    next_uses = {key: ticket[0] for key, (ticket, _) in acquired.items()}
    disks = [disk_of(fetch.file.path) for fetch in fetches]
    is_near = [disks[:place].count(disk) < nearest for place, disk in enumerate(disks)]
    rest = tuple((fetch.file.key, fetch.position) for fetch, near in zip(fetches, is_near, strict=True) if not near)
    return Plan(tuple(compress(fetches, is_near)), frozenset(resident), frozenset(pages), next_uses, rest)


def firsts(uses: Iterable[Needed]) -> dict[AdapterKey, Needed]:
    """The first use of every file, in order."""
    found: dict[AdapterKey, Needed] = {}
    for ticket, use in uses:
        found.setdefault(use.key, (ticket, use))
    return found


def within_reach(files: Mapping[AdapterKey, Needed], limit_bytes: int | None) -> set[AdapterKey]:
    """As far as the bytes of a tier reach; the first job gets its own."""
    reached: set[AdapterKey] = set()
    left_bytes = limit_bytes or 0
    for key, ((position, _), use) in files.items() if left_bytes > 0 else ():
        left_bytes -= use.file.size_bytes
        if left_bytes < 0 and position > 0:
            break
        reached.add(key)
    return reached


class Queue(RuleBasedStateMachine):
    """Any way in which a queue changes; after each, both plans are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.horizon = Horizon(nearest=2)
        self.jobs: list[JobNeeds] = []
        self.submitted = 0
        self.limits = Limits(30, 30)
        self.warm = Warm()
        self.disk_of: Callable[[str], str] | None = None

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

    @rule(disk_of=st.sampled_from([None, two_disks]))
    def locate(self, disk_of: Callable[[str], str] | None) -> None:
        self.disk_of = disk_of

    @invariant()
    def plans_are_the_same(self) -> None:
        self.horizon.follow(self.jobs)
        plan = self.horizon.plan(self.limits, self.warm, self.disk_of)
        anew = planned_anew(self.jobs, self.limits, self.warm, 2, self.disk_of or one_disk)
        assert replace(plan, rest=tuple(plan.rest)) == anew


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


@given(st.lists(USES, max_size=6), BUDGETS, BUDGETS)
def test_a_queue_seen_once(queue: list[list[tuple[LoraFile, bool]]], resident: int | None, pages: int | None) -> None:
    jobs = [needs(str(i), uses) for i, uses in enumerate(queue)]
    horizon = Horizon(nearest=3)
    horizon.follow(jobs)
    limits = Limits(resident, pages)
    plan = horizon.plan(limits, Warm())
    assert replace(plan, rest=tuple(plan.rest)) == planned_anew(jobs, limits, Warm(), 3)
